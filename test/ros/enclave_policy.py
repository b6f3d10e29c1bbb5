"""SROS 2 policies: what a node uses of the ROS graph, as the policy file says it and as the running node shows it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

VERSION = "0.2.0"
# Field of `Interface` -> as in sros2's policy.xsd: element that lists names, element of one, attribute that allows.
LISTS = {
    "publishes": ("topics", "topic", "publish"),
    "subscribes": ("topics", "topic", "subscribe"),
    "replies": ("services", "service", "reply"),
    "requests": ("services", "service", "request"),
}
HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<!-- SROS 2 policy: what each node may do, and nothing else. Made from the running nodes by `make enclaves`,
     and compared with them by `make test`. Names without a slash are in the node's namespace: for another, change `ns`.
     How keys and permissions are made of it: docs/security.md. -->
"""


@dataclass(frozen=True)
class Interface:
    """Names as a policy writes them: ``~/x`` is the node's own, ``x`` relative to its namespace, ``/x`` absolute."""

    publishes: frozenset[str] = frozenset()
    subscribes: frozenset[str] = frozenset()
    replies: frozenset[str] = frozenset()
    requests: frozenset[str] = frozenset()

    def __or__(self, other: Interface) -> Interface:
        return Interface(**{f.name: getattr(self, f.name) | getattr(other, f.name) for f in fields(self)})

    def without(self, other: Interface) -> dict[str, list[str]]:
        """What this one uses and ``other`` does not; empty if nothing."""
        more = {f.name: sorted(getattr(self, f.name) - getattr(other, f.name)) for f in fields(self)}
        return {name: names for name, names in more.items() if names}


@dataclass(frozen=True)
class Enclave:
    """``path``: the enclave's name; ``node``: the only node in it."""

    path: str
    node: str
    interface: Interface


def interface_in_graph(observer, node: str, namespace: str) -> Interface:
    """What ``observer``, an rclpy node, sees of ``namespace``/``node`` now; NodeNameNonExistentError if nothing."""

    def written(found: list[tuple[str, list[str]]]) -> frozenset[str]:
        return frozenset(_expression(name, node, namespace) for name, _ in found)

    return Interface(
        written(observer.get_publisher_names_and_types_by_node(node, namespace)),
        written(observer.get_subscriber_names_and_types_by_node(node, namespace)),
        written(observer.get_service_names_and_types_by_node(node, namespace)),
        written(observer.get_client_names_and_types_by_node(node, namespace)),
    )


def _expression(name: str, node: str, namespace: str) -> str:
    own = f"{namespace}/{node}/"
    if name.startswith(own):
        return "~/" + name.removeprefix(own)
    return name.removeprefix(f"{namespace}/")


def policy_text(enclaves: list[Enclave]) -> str:
    """The policy file."""
    policy = ElementTree.Element("policy", version=VERSION)
    listed = ElementTree.SubElement(policy, "enclaves")
    for enclave in enclaves:
        profiles = ElementTree.SubElement(ElementTree.SubElement(listed, "enclave", path=enclave.path), "profiles")
        profile = ElementTree.SubElement(profiles, "profile", ns="/", node=enclave.node)
        for field, (plural, singular, right) in LISTS.items():
            if names := getattr(enclave.interface, field):
                names_of = ElementTree.SubElement(profile, plural, {right: "ALLOW"})
                for name in sorted(names):
                    ElementTree.SubElement(names_of, singular).text = name
    ElementTree.indent(policy)
    return HEADER + ElementTree.tostring(policy, encoding="unicode") + "\n"


def read_policy(path: Path) -> list[Enclave]:
    """ValueError for whatever sros2's policy.xsd forbids, and for what we never use: wildcards, DENY, two profiles."""
    policy = ElementTree.parse(path).getroot()
    _expect(policy, "policy", {"version": VERSION})
    (enclaves,) = _children(policy, "enclaves")
    _expect(enclaves, "enclaves", {})
    return [_enclave(element) for element in _children(enclaves, "enclave")]


def _enclave(element: ElementTree.Element) -> Enclave:
    _expect(element, "enclave", {"path": element.get("path")})
    (profiles,) = _children(element, "profiles")
    (profile,) = _children(profiles, "profile")
    _expect(profiles, "profiles", {})
    _expect(profile, "profile", {"ns": "/", "node": profile.get("node")})
    found: dict[str, frozenset[str]] = {}
    for names in profile:
        kinds = [f for f, (plural, _, right) in LISTS.items() if names.tag == plural and right in names.attrib]
        field = kinds[0] if kinds else ""
        if not field or field in found:
            raise ValueError(
                f"{element.get('path')}: <{names.tag} {names.attrib}>: expected each of {list(LISTS)} once"
            )
        _, singular, right = LISTS[field]
        _expect(names, names.tag, {right: "ALLOW"})
        texts = [child.text or "" for child in _children(names, singular)]
        if len(set(texts)) != len(texts) or not all(_is_plain(text) for text in texts):
            raise ValueError(f"{element.get('path')}: {field} {texts}: expected plain names, each once")
        found[field] = frozenset(texts)
    return Enclave(element.get("path"), profile.get("node"), Interface(**found))


def _is_plain(name: str) -> bool:
    return name.removeprefix("~/").removeprefix("/").replace("/", "").replace("_", "").isalnum()


def _expect(element: ElementTree.Element, tag: str, attributes: dict[str, str | None]) -> None:
    if element.tag != tag or element.attrib != attributes or None in attributes.values():
        raise ValueError(f"<{element.tag} {element.attrib}>: expected <{tag} {attributes}>")


def _children(element: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    children = list(element)
    if not children or any(child.tag != tag for child in children):
        raise ValueError(f"<{element.tag}> holds {[child.tag for child in children]}: expected one or more <{tag}>")
    return iter(children)
