"""What was published and never reached the callback: with KEEP_LAST 1 a newer volume overwrites one in transport."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

MAX_PUBLISHERS = 64
"""Remembered; the one heard longest ago makes way, so publishers that come and go cost no memory."""


class Arrivals:
    """Finds gaps in the sequence numbers that the middleware gives the messages of each publisher.

    A publisher counts from its first message that arrives. Where the middleware tells no number or no publisher (rclpy
    before Kilted), nothing is counted.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, int] = OrderedDict()

    def missed(self, info: Mapping[str, object]) -> int:
        """Messages of the same publisher between this one and the one before; ``info``: rclpy's MessageInfo of it."""
        number, gid = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is None or not gid:
            return 0
        publisher = bytes(gid["data"])
        last = self._last.get(publisher, number - 1)
        self._last[publisher] = max(last, number)
        self._last.move_to_end(publisher)
        while len(self._last) > MAX_PUBLISHERS:
            self._last.popitem(last=False)
        return max(0, number - last - 1)
