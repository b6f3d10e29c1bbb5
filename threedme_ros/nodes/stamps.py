"""The stamps of volumes: what is odd about them is counted and told, never a reason to refuse a volume.

The rule: the volume that arrives last is the newest, whatever its stamp says. DDS keeps the order of a source, and its
clock may step back (NTP, a restarted simulation, a bag that is played again): a node that refused what looks old would
then show the anatomy of before the step for as long as the step was. Results carry the stamp of their volume.
"""

from __future__ import annotations

AHEAD_S = 1.0
"""Clocks of two machines differ by less."""


class StampWatch:
    """Looks at one stamp after the other; from one thread. counts: how many were odd, by `ODD`."""

    ODD = ("repeated", "reversed", "ahead")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(self.ODD, 0)
        self._last_ns: int | None = None

    def look(self, stamp_ns: int, now_ns: int) -> str:
        """What is odd about the stamp of a volume that arrives at ``now_ns``, in words; empty if nothing is.

        Both in ns, the second of the node's clock.
        """
        last_ns, self._last_ns = self._last_ns, stamp_ns
        said = []
        if last_ns is not None and stamp_ns == last_ns:
            self.counts["repeated"] += 1
            said.append("repeats the one before")
        elif last_ns is not None and stamp_ns < last_ns:
            self.counts["reversed"] += 1
            said.append(f"is {(last_ns - stamp_ns) / 1e9:.3f} s before the one before")
        if stamp_ns > now_ns + AHEAD_S * 1e9:
            self.counts["ahead"] += 1
            said.append(f"is {(stamp_ns - now_ns) / 1e9:.3f} s ahead of this node's clock")
        return f"stamp {stamp_ns / 1e9:.3f} " + ", ".join(said) if said else ""
