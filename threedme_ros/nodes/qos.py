"""The QoS of every topic, and a log line when the other side's does not match: ROS 2 itself stays silent."""

from __future__ import annotations

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind

VOLUMES = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)
"""A volume source. Volatile: who joins late must wait for a fresh volume, never act on an old one."""

RESULTS = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""Results. Latched: who joins late sees the last good anatomy. Best-effort and volatile subscribers match, too."""


def publisher_events(node, topic: str, ours: QoSProfile, report) -> PublisherEventCallbacks:
    """Calls ``report(line)`` when a subscriber of ``topic`` asks for what ``ours`` does not offer."""

    def mismatch(event) -> None:
        others = node.get_subscriptions_info_by_topic(node.resolve_topic_name(topic))
        report(_mismatch(topic, "subscriber", event, f"offers {describe(ours)}", others))

    return PublisherEventCallbacks(incompatible_qos=mismatch)


def subscription_events(node, topic: str, ours: QoSProfile, report, matched) -> SubscriptionEventCallbacks:
    """Calls ``report(line)`` when a publisher on ``topic`` offers less than ``ours`` asks for, and ``matched(n)`` with
    the number of publishers connected whenever that changes."""

    def mismatch(event) -> None:
        others = node.get_publishers_info_by_topic(node.resolve_topic_name(topic))
        report(_mismatch(topic, "publisher", event, f"requests {describe(ours)}", others))

    return SubscriptionEventCallbacks(incompatible_qos=mismatch, matched=lambda event: matched(event.current_count))


def describe(qos: QoSProfile) -> str:
    return f"{qos.reliability.name}, {qos.durability.name}"


def _mismatch(topic: str, side: str, event, ours: str, others: list) -> str:
    policy = qos_policy_name_from_kind(event.last_policy_kind)
    seen = "; ".join(f"{other.node_name}: {describe(other.qos_profile)}" for other in others) or "not yet discovered"
    return f"{topic}: incompatible {policy} with a {side}, nothing passes; this node {ours}; {side}s: {seen}"
