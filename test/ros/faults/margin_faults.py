"""Margins that change at an odd moment, before a bad volume: what is shown as no-go anatomy must follow them."""

from engine_faults import hang
from lifecycle_msgs.msg import Transition
from perceiving import TYPES, next_stamp
from scenario import Scenario
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header
from test_bad_input import GOOD
from theatre import NAME, SMALL

from threedme_ros.anatomy import Role
from threedme_ros.nodes.messages import anatomy_from_label_info, byte_array
from threedme_ros.nodes.qos import RESULTS

NARROW_MM, WIDE_MM = 0.0, 25.0
FOLLOWS_S = 30.0
"""Obstacles are made again in far less than a second."""


class Margins(Scenario):
    """``change`` sets them from narrow to wide, and a bad volume follows."""

    expected = "label_info shows the new margins, and the obstacles of the last good volume have them"

    def __init__(self) -> None:
        self.before: dict[str, float] = {}

    def inject(self, theatre, chance):
        theatre.node.segment(SMALL)
        self.before = {s.name: s.margin_mm for s in self.shown(theatre)}
        self.set(theatre, WIDE_MM)
        theatre.node.segment(SMALL)
        self.wide = self.obstacles(theatre)
        self.set(theatre, NARROW_MM)
        theatre.node.segment(SMALL)
        assert self.obstacles(theatre) != self.wide
        self.change(theatre)

    def change(self, theatre) -> None:
        raise NotImplementedError

    def verify(self, theatre):
        shown = {structure.margin_mm for structure in self.shown(theatre)}
        assert shown == {WIDE_MM}, f"label_info shows margins of {shown} mm"
        theatre.domain.spin_until(
            lambda: self.obstacles(theatre) == self.wide,
            FOLLOWS_S,
            f"the margins of {WIDE_MM:g} mm in label_info are not those of the obstacles",
        )
        return f"obstacles grown by {WIDE_MM:g} mm, as label_info says"

    def set(self, theatre, margin_mm: float) -> None:
        for name in self.before:
            assert theatre.domain.set_parameter(NAME, f"margin_mm.{name}", margin_mm).successful

    def shown(self, theatre) -> list:
        """No-go structures as label_info has them."""
        info = theatre.domain.late(TYPES["label_info"], "/label_info", RESULTS)
        return [structure for structure in anatomy_from_label_info(info) if structure.role is Role.NO_GO]

    def obstacles(self, theatre) -> bytes:
        return bytes(theatre.node.last("anatomy/obstacles").data)

    def clear(self, theatre):
        for name, margin_mm in self.before.items():
            theatre.domain.set_parameter(NAME, f"margin_mm.{name}", margin_mm)


class WhileInactive(Margins):
    name = "margins changed while inactive, before a bad volume"

    def change(self, theatre):
        theatre.transition(Transition.TRANSITION_DEACTIVATE)
        self.set(theatre, WIDE_MM)
        theatre.transition(Transition.TRANSITION_ACTIVATE)
        theatre.connected()
        theatre.refuses()


class WhileAtWork(Margins):
    name = "margins changed amid inference, before a bad volume"

    def change(self, theatre):
        refused = theatre.node.count("refused")
        hang(theatre, "openvino")
        header = Header(stamp=next_stamp(), frame_id="patient")
        theatre.node.send(CompressedImage(header=header, format="nifti", data=byte_array(GOOD[:-100])))
        theatre.said("volumes_in_work", "2")
        self.set(theatre, WIDE_MM)
        theatre.runtimes.heal()
        theatre.counted("refused", refused + 1)

    def clear(self, theatre):
        theatre.runtimes.heal()
        super().clear(theatre)


SCENARIOS = (WhileInactive, WhileAtWork)
