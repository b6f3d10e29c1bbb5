"""Volume sources that die, stall, lie about time, shout or send rubbish."""

import time

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from perceiving import next_stamp
from scenario import Scenario
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from test_bad_input import BAD, GOOD
from theatre import SMALL, WAIT_S, killed, stopped

from threedme_ros.nodes.messages import byte_array, volume_message
from threedme_ros.nodes.qos import VOLUMES

RUBBISH = {name: pair for name, pair in BAD.items() if "the limit is" not in pair[1]}  # our limit is another
FLOOD, MANY = 40, 12
WARNED = (DiagnosticStatus.WARN, DiagnosticStatus.STALE)
"""STALE outranks a warning, and on a busy machine results may be that old."""


class PlayerKilled(Scenario):
    name = "player killed (SIGKILL)"
    expected = "diagnostics STALE with the silence named, the last good anatomy stays latched"
    slow = True

    def inject(self, theatre, chance):
        self.player = theatre.player()
        theatre.domain.rest(chance.uniform(0.0, 1.0))
        killed(self.player)

    def verify(self, theatre):
        theatre.said("source", "stale")
        said = theatre.node.diagnostics
        assert said["level"] == DiagnosticStatus.STALE, said
        theatre.settled()
        theatre.serves(theatre.last_good)
        return f"STALE: {said['message'].partition(';')[0]}; last good anatomy latched"

    def clear(self, theatre):
        killed(self.player)


class PlayerStalls(Scenario):
    name = "source stalled (SIGSTOP), then going on"
    expected = "diagnostics STALE while it is silent, and well again by itself when it goes on"
    slow = True

    def inject(self, theatre, chance):
        self.player = theatre.player()
        theatre.domain.rest(chance.uniform(0.0, 1.0))
        stopped(self.player, True)

    def verify(self, theatre):
        theatre.said("source", "stale")
        assert theatre.node.diagnostics["level"] == DiagnosticStatus.STALE
        theatre.settled()
        theatre.serves(theatre.last_good)
        segmented = theatre.node.count("segmented")
        stopped(self.player, False)
        theatre.said("source", "current")
        theatre.counted("segmented", segmented + 2)
        return "STALE, then current by itself, and segmented on"

    def clear(self, theatre):
        killed(self.player)


class TwoPublishers(Scenario):
    name = "two publishers on volume"
    expected = "a warning names them, and every volume of both is accounted for"

    def inject(self, theatre, chance):
        self.other = theatre.domain.node.create_publisher(CompressedImage, "/volume", VOLUMES)
        sources = int(theatre.node.diagnostics["volume_sources"])
        theatre.domain.spin_until(lambda: int(theatre.node.diagnostics["volume_sources"]) > sources, what="not seen")
        theatre.domain.spin_until(self.other.get_subscription_count, what="the other publisher sees no subscription")
        both = (self.other, theatre.node.publisher)
        self.accounted = theatre.accounted
        # A publisher counts from its first volume that arrives, and one overwritten is missed at its next that arrives:
        # so the first and the last ones wait for one another.
        self.arrives(theatre, self.other)
        for _ in range(6):
            theatre.node.send(volume_message(SMALL, next_stamp()), chance.choice(both))
            theatre.domain.rest(chance.uniform(0.0, 0.2))
        for publisher in both:
            theatre.domain.rest(0.2)
            self.arrives(theatre, publisher)
        self.sent = 1 + 6 + 2

    def arrives(self, theatre, publisher) -> None:
        stamp = theatre.node.send(volume_message(SMALL, next_stamp()), publisher)
        theatre.domain.spin_until(
            lambda: theatre.last_good == stamp, WAIT_S, lambda: f"not segmented: {theatre.node.diagnostics}"
        )

    def verify(self, theatre):
        text = theatre.tells("publishers on volume: expected one")
        assert theatre.node.diagnostics["level"] in WARNED
        theatre.settled()
        total = self.accounted + self.sent
        theatre.domain.spin_until(
            lambda: theatre.accounted == total, WAIT_S, lambda: f"not {total}: {theatre.node.diagnostics}"
        )
        return f"told: {text[: text.index(' expected one')].rpartition('; ')[2]}; all accounted for"

    def clear(self, theatre):
        theatre.domain.node.destroy_publisher(self.other)


class OddStamp(Scenario):
    """One volume whose stamp is odd in ``how``, after one that is not."""

    how: str

    def stamp(self, before: Time, chance) -> Time:
        raise NotImplementedError

    def inject(self, theatre, chance):
        before = theatre.node.segment(SMALL)
        self.counted = int(theatre.node.diagnostics[f"stamps_{self.how}"])
        self.segmented = theatre.node.count("segmented")
        self.sent = theatre.send(stamp=self.stamp(before, chance))

    def verify(self, theatre):
        theatre.counted("segmented", self.segmented + 1)
        theatre.said(f"stamps_{self.how}", str(self.counted + 1))
        text = theatre.tells("stamp ")
        assert theatre.node.diagnostics["level"] in WARNED, theatre.node.diagnostics
        assert float(theatre.node.diagnostics["age_of_last_result_s"]) >= 0
        theatre.serves(self.sent)
        return f"segmented and told: {text[text.index('stamp ') :].partition(';')[0]}"


class StampRepeated(OddStamp):
    name = "stamp repeated"
    expected = "accepted, counted, and told as a warning"
    how = "repeated"

    def stamp(self, before, chance):
        return before


class StampReversed(OddStamp):
    name = "stamp reversed"
    expected = "accepted (who arrives last is the newest), counted, and told as a warning"
    how = "reversed"

    def stamp(self, before, chance):
        return Time(sec=chance.randrange(1, before.sec))


class StampAhead(OddStamp):
    name = "stamp ahead of the node's clock"
    expected = "accepted, counted, told as a warning; no negative latency or age"
    how = "ahead"

    def stamp(self, before, chance):
        return Time(sec=int(time.time()) + chance.randrange(60, 10**8))

    def verify(self, theatre):
        happened = super().verify(theatre)
        latency = theatre.node.diagnostics["stamp_to_publish_last_ms"]
        assert latency == "" or float(latency) >= 0
        return happened


class HostileVolumes(Scenario):
    name = "hostile volumes amid good ones"
    expected = (
        "each refused with its reason, every good one segmented, the last good anatomy kept and called stale; "
        "the log tells all, in few lines"
    )

    def inject(self, theatre, chance):
        self.names = chance.sample(sorted(RUBBISH), 4)
        self.refused = theatre.node.count("refused")
        self.stamps = []
        for number, name in enumerate(self.names, 1):
            good = theatre.node.segment(SMALL)
            change, reason = RUBBISH[name]
            header = Header(stamp=change.get("stamp", next_stamp()), frame_id=change.get("frame_id", "patient"))
            message = CompressedImage(header=header, format=change.get("format", "nifti"))
            message.data = byte_array(change.get("data", GOOD))
            theatre.node.send(message)
            theatre.counted("refused", self.refused + number)
            said = theatre.node.diagnostics
            assert reason in said["last_error"], f"{name}: {said['last_error']}"
            assert said["level"] in WARNED and said["anatomy"] == "stale", said
            self.stamps.append(good)
        for _ in range(MANY):
            theatre.refuses()

    def verify(self, theatre):
        theatre.serves(self.stamps[-1])
        theatre.settled()
        theatre.throttled("volume_refused")
        theatre.told_all("volume_refused", "refused")
        theatre.throttled("volume_refused")
        return f"refused with a reason each: {', '.join(self.names)}"


class Flood(Scenario):
    name = "volumes faster than they can be taken"
    expected = "the newest wins; replaced and overwritten ones are counted, none is lost uncounted; the log stays short"

    def inject(self, theatre, chance):
        self.before = theatre.accounted
        message = volume_message(SMALL, next_stamp())
        for _ in range(FLOOD):
            message.header.stamp = self.last = next_stamp()
            theatre.node.send(message)
            if chance.random() < 0.3:
                theatre.domain.rest(0.01)

    def verify(self, theatre):
        node = theatre.node
        theatre.domain.spin_until(lambda: theatre.last_good == self.last, WAIT_S, "the last one was not segmented")
        total = self.before + FLOOD
        theatre.domain.spin_until(
            lambda: theatre.accounted == total, WAIT_S, lambda: f"not {total}: {node.diagnostics}"
        )
        theatre.settled()
        for _ in range(MANY):  # a flood is mostly replaced: its log alone would be short anyway
            segmented = node.count("segmented")
            theatre.send()
            theatre.counted("segmented", segmented + 1)
        theatre.throttled("volume_segmented")
        return f"{FLOOD} sent, the last one shown, all accounted for"


SCENARIOS = (
    PlayerKilled,
    PlayerStalls,
    TwoPublishers,
    StampRepeated,
    StampReversed,
    StampAhead,
    HostileVolumes,
    Flood,
)
