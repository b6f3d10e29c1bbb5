"""The audit before an index of our own making: what is wrong is called wrong, and silence is not called good."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from audit import CANARY, ROOT, Findings, advisories, check_advisories, check_pins, index_address, pins

KNOWN = {"id": "PYSEC-1"}


def index(releases: dict, newest: dict):
    """An index: (name, version) -> advisories where it answers for a release, name -> (version, advisories)."""

    def ask(address: str) -> dict | None:
        parts = address.removeprefix("index/").removesuffix("/json").split("/")
        if len(parts) == 2:
            found = releases.get(tuple(parts))
            return None if found is None else {"info": {"version": parts[1]}, "vulnerabilities": found}
        version, found = newest.get(parts[0], (None, None))
        return None if version is None else {"info": {"version": version}, "vulnerabilities": found}

    return ask


def checked(pinned: dict, ask) -> Findings:
    findings = Findings()
    check_advisories(findings, pinned, "index", ask)
    return findings


def test_an_advisory_against_a_pin_is_wrong():
    findings = checked({"a": "1.0"}, index({("a", "1.0"): [KNOWN]}, {CANARY: ("9", [KNOWN])}))
    assert findings.wrong == ["a 1.0: PYSEC-1"] and not findings.unchecked


def test_a_withdrawn_advisory_does_not_count():
    assert advisories("a", "1.0", "index", index({("a", "1.0"): [KNOWN | {"withdrawn": "2026-01-01"}]}, {})) == []


def test_an_index_that_answers_for_the_newest_release_only_vouches_for_no_other():
    ask = index({}, {CANARY: ("9", [KNOWN]), "a": ("1.0", []), "b": ("2.0", [])})
    findings = checked({"a": "1.0", "b": "1.9"}, ask)
    assert findings.good == ["advisories: 1 of 2 pinned releases have none known"] and not findings.wrong
    assert findings.unchecked == ["advisories against b 1.9: the index tells only of its newest release, 2.0"]


@pytest.mark.parametrize("newest", [{}, {CANARY: ("9", [])}, {CANARY: ("9", None)}])
def test_an_index_without_advisories_vouches_for_nothing(newest):
    if newest.get(CANARY, ("", []))[1] is None:
        ask = lambda address: {"info": {"version": "9"}}  # noqa: E731
    else:
        ask = index({("a", "1.0"): []}, newest)
    findings = checked({"a": "1.0"}, ask)
    assert not findings.good and findings.unchecked == [f"advisories: the index does not know the one against {CANARY}"]


def test_an_index_that_knows_no_list_of_advisories_tells_nothing():
    ask = lambda address: {"info": {"version": "1.0"}, "vulnerabilities": None}  # noqa: E731
    assert advisories("a", "1.0", "index", ask) == "the index tells nothing of it"


def test_the_index_is_the_one_that_pip_asks(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.example/simple/")
    assert index_address() == "https://index.example/pypi"


def test_an_index_out_of_reach_is_said_to_be():
    def ask(address):
        raise OSError("no route")

    assert checked({"a": "1.0"}, ask).unchecked == ["advisories: the index cannot be asked (OSError)"]


def test_a_line_that_does_not_pin_is_wrong():
    assert pins("a==1.0  # why\n\n# note\nb>=2\nc==1.*\n") == ({"a": "1.0"}, ["b>=2", "c==1.*"])
    findings = Findings()
    check_pins(findings, "numpy>=1\nno-such-package==1.0\npytest==0.1")
    assert findings.wrong[0] == "pins: 'numpy>=1': expected NAME==VERSION"
    assert findings.wrong[1].startswith("installed: pytest ") and findings.wrong[1].endswith("expected 0.1")
    assert findings.unchecked == ["no-such-package: pinned, not installed here"]


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-apt.txt"])
def test_every_line_of_our_constraints_pins_one_version(name):
    pinned, loose = pins((ROOT / name).read_text())
    assert pinned and not loose
