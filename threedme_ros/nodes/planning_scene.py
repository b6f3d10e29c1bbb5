"""The planning scene node: what perception sees becomes MoveIt's collision objects, fail-closed.

| topic | type | QoS (reliability, durability, depth) | |
|---|---|---|---|
| `labels`, `confidence` | CompressedImage | reliable, transient local, 1 | subscribed, paired by stamp |
| `label_info` | String | reliable, transient local, 1 | subscribed: names, margins, roles, colours |
| `/diagnostics` | DiagnosticArray | reliable, volatile, 10 | subscribed: is perception well? Published: 1 Hz |

Services called: `/apply_planning_scene`, `/get_planning_scene` (what is really there), `/clear_octomap` (after a new
registration). Services offered: `~/registration_changed` (Trigger: place everything again), `~/accept` (Trigger: an
operator takes the last volume as the truth). Parameters: `PlanningSceneParameters`. See docs/moveit.md.

A no-go structure is the object `<prefix><name>`, its surface grown by its margin; targets are subframes of
`<prefix>targets`. What to send is decided in `threedme_ros.scene`. Here are topics and threads: callbacks never block,
one worker reads volumes, another builds and sends requests.
"""

from __future__ import annotations

import itertools
import threading
import time
import traceback

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from std_srvs.srv import Empty, Trigger

from threedme_ros.anatomy import Anatomy
from threedme_ros.nodes import collision_objects
from threedme_ros.nodes.caller import Caller
from threedme_ros.nodes.diagnostics import diagnostics_message
from threedme_ros.nodes.entry import run_node
from threedme_ros.nodes.event_log import EventLog
from threedme_ros.nodes.frame_watch import FrameWatch
from threedme_ros.nodes.messages import anatomy_from_label_info, volume_from_message
from threedme_ros.nodes.parameters import ParameterError, declare_parameters, read_parameters
from threedme_ros.nodes.planning_scene_parameters import PlanningSceneParameters
from threedme_ros.nodes.qos import RESULTS, subscription_events
from threedme_ros.nodes.steady_timer import steady_timer
from threedme_ros.nodes.watchdog import LeftBehind
from threedme_ros.nodes.worker import Worker
from threedme_ros.scene.belief import Belief
from threedme_ros.scene.keeper import Keeper
from threedme_ros.scene.look import looked_at
from threedme_ros.scene.plan import ScenePlan
from threedme_ros.scene.registration import Registration
from threedme_ros.scene.watch import Watch

TICK_S = 0.1
DIAGNOSTICS_PERIOD_S = 1.0
STOP_TIMEOUT_S = 10.0
LEVELS = (DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR)


class PlanningScene(Node):
    """See the module's table. ``self._plan`` is shared by all threads, under ``self._lock``, and never waited for."""

    def __init__(self, **kwargs) -> None:
        super().__init__("planning_scene", **kwargs)
        self._log = EventLog(self.get_logger())
        declare_parameters(self, PlanningSceneParameters)
        self._parameters = p = read_parameters(self, PlanningSceneParameters)
        try:
            collision_objects.require_moveit_msgs()
        except ImportError as error:
            raise ParameterError(str(error)) from error
        from moveit_msgs.srv import ApplyPlanningScene, GetPlanningScene

        namespace = self.get_namespace().rstrip("/")
        self._perception = p.perception if p.perception.startswith("/") else f"{namespace}/{p.perception}"
        belief, keeper, watch = Belief(p.rules), Keeper(p.pace), Watch(self._perception)
        self._plan = ScenePlan(belief, keeper, watch, p.clear_octomap)
        self._lock = threading.Lock()
        self._keys = itertools.count()
        self._anatomy: Anatomy | None = None
        self._newest: dict[str, CompressedImage] = {}  # by topic
        self._waiting: tuple[CompressedImage, CompressedImage, float] | None = None  # for perception's verdict
        self._registration = Registration(settle_s=p.settle_s)
        self._frames = FrameWatch(self, p.planning_frame) if p.planning_frame else None
        self._frame_lost = False
        self._level = DiagnosticStatus.OK
        self._last_error = ""
        self._next_check_s = 0.0
        self._apply = Caller(self, ApplyPlanningScene, "/apply_planning_scene")
        self._get = Caller(self, GetPlanningScene, "/get_planning_scene")
        self._clear = Caller(self, Empty, "/clear_octomap")
        self._left_behind = LeftBehind()
        self._reader = Worker(self._read, "planning scene volumes")
        self._sender = Worker(self._send, "planning scene requests")
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        for kind, topic in ((CompressedImage, "labels"), (CompressedImage, "confidence"), (String, "label_info")):
            events = subscription_events(self, topic, RESULTS, self._warn, lambda connected: None)
            heard = self._on_label_info if kind is String else lambda message, topic=topic: self._on(topic, message)
            self.create_subscription(kind, topic, heard, RESULTS, event_callbacks=events)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.create_service(Trigger, "~/registration_changed", self._on_registration_changed)
        self.create_service(Trigger, "~/accept", self._on_accept)
        steady_timer(self, TICK_S, self._tick)
        steady_timer(self, DIAGNOSTICS_PERIOD_S, self._publish_diagnostics)

    def close(self) -> None:
        """The objects stay in the scene: without us, they are the last that is known."""
        for worker in (self._reader, self._sender):
            worker.stop(STOP_TIMEOUT_S, self._left_behind)
        self._log.flush(everything=True)

    @property
    def threads_left_behind(self) -> int:
        """Threads that hang: the process cannot join them."""
        return self._left_behind.count

    # What comes in.

    def _on(self, topic: str, message: CompressedImage) -> None:
        self._newest[topic] = message
        self._pair()

    def _on_label_info(self, message: String) -> None:
        try:
            self._anatomy = anatomy_from_label_info(message)
        except ValueError as error:
            self._warn(f"label_info refused: {error}")
            return
        self._pair()

    def _pair(self) -> None:
        labels, confidence = self._newest.get("labels"), self._newest.get("confidence")
        if self._anatomy and labels and confidence and labels.header == confidence.header:
            self._waiting = labels, confidence, time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == self._perception:
                sources = next((v.value for v in status.values if v.key == "volume_sources"), None)
                well = status.level == DiagnosticStatus.OK
                with self._lock:
                    self._plan.watch.heard(time.monotonic(), well=well, message=status.message, sources=sources)

    def _on_registration_changed(self, request, response):
        with self._lock:
            self._plan.registration_changed(time.monotonic() + self._parameters.settle_s)
        response.success, response.message = True, "objects are moved and the octomap is cleared"
        return response

    def _on_accept(self, request, response):
        with self._lock:
            response.success = self._plan.accept(time.monotonic())
        response.message = "the last volume is taken as the truth" if response.success else "no volume yet"
        self._log.warning("accept", f"accept: {response.message}")
        return response

    # Ten times a second: what became due.

    def _tick(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            self._plan.server(self._apply.ready)
            frame_id = self._plan.belief.frame_id
            alarm = self._plan.watch.verdict(now_s, self._waiting[2]) if self._waiting else None
        if alarm is not None:
            self._reader.submit((*self._waiting[:2], self._anatomy, alarm))
            self._waiting = None
        if self._frames and frame_id:
            self._watch_frame(now_s, frame_id)
        self._sender.offer(True)
        self._check(now_s)
        self._clear_octomap()

    def _watch_frame(self, now_s: float, frame_id: str) -> None:
        transform = self._frames.transform(frame_id)
        self._frame_lost = transform is None
        if transform is not None and self._registration.update(now_s, transform):
            self._log.info("registration_moved", f"{frame_id} moved against {self._parameters.planning_frame}")
            with self._lock:
                self._plan.registration_changed(now_s)  # it has settled

    def _check(self, now_s: float) -> None:
        """Ask what the scene holds, unless it is just being changed."""
        with self._lock:
            busy, counts = self._plan.keeper.busy, dict(self._plan.keeper.counts)
        if busy or now_s < self._next_check_s or not self._get.ready:
            return
        self._next_check_s = now_s + self._parameters.check_period_s
        prefix = self._parameters.object_prefix

        def answered(response) -> None:
            if response is None:
                return
            ids = [entry.id for entry in response.scene.world.collision_objects]
            with self._lock:
                if self._plan.keeper.counts == counts and not self._plan.keeper.busy:
                    self._plan.found_in_scene({i.removeprefix(prefix) for i in ids if i.startswith(prefix)})

        self._get.call(collision_objects.names_request(), answered)

    def _clear_octomap(self) -> None:
        with self._lock:
            due = self._plan.octomap_clearable(time.monotonic())
            registrations = self._plan.registrations
        if not due or self._clear.busy or not self._clear.ready:
            return

        def answered(response) -> None:
            with self._lock:
                if response is not None and registrations == self._plan.registrations:
                    self._plan.octomap_due = False

        self._clear.call(Empty.Request(), answered)

    # The workers.

    def _read(self, job: tuple[CompressedImage, CompressedImage, Anatomy, str]) -> None:
        labels, confidence, anatomy, alarm = job
        try:
            volumes = [volume_from_message(m, max_voxels=self._parameters.max_voxels) for m in (labels, confidence)]
            look, found = looked_at(*volumes, anatomy, next(self._keys), alarm)
            with self._lock:
                self._plan.observe(time.monotonic(), look, found)
        except Exception as error:  # the last anatomy stays, and ages
            self._warn(f"labels refused: {error}")
            return
        self._sender.offer(True)

    def _send(self, _: bool) -> None:
        with self._lock:
            job = self._plan.next(time.monotonic())
        if job is None:
            return
        self._apply.give_up()  # whatever is still unanswered has had its time
        try:
            request = collision_objects.scene_request(
                job, self._parameters.object_prefix, max_faces=self._parameters.max_faces
            )
            with self._lock:
                self._plan.keeper.sent(time.monotonic())
            self._apply.call(request, self._answered)
        except Exception as error:
            self._log.error("not_applied", f"{job.changes[0].name}: {error}", trace=traceback.format_exc())
            with self._lock:
                self._plan.keeper.failed(time.monotonic(), str(error))

    def _answered(self, response) -> None:
        now_s = time.monotonic()
        with self._lock:
            if response is None:
                self._plan.keeper.failed(now_s, "the call failed")
            elif response.success:
                self._plan.keeper.acknowledged()
            else:
                self._plan.keeper.refused(now_s)
                self._warn(self._plan.keeper.last_error)
        self._sender.offer(True)

    # What is said.

    def _warn(self, line: str) -> None:
        self._last_error = line
        self._log.warning("warning", line, source=line.partition(":")[0])

    def _publish_diagnostics(self) -> None:
        self._log.flush()
        now_s = time.monotonic()
        with self._lock:
            condition = self._plan.condition(now_s)
            wanted, _ = self._plan.objects(now_s)
            held, keeper = self._plan.keeper.held, self._plan.keeper
            values = {
                "objects_held": ", ".join(sorted(held)),
                "objects_wanted": ", ".join(sorted(wanted)),
                "growth_mm": f"{max((want.extra_mm for want in wanted.values()), default=0.0):g}",
                "registrations": self._plan.registrations,
                "octomap": "to be cleared" if self._plan.octomap_due else "current",
                **keeper.counts,
                "last_error": keeper.last_error or self._last_error,
            }
        level, lines = LEVELS[condition.level], list(condition.lines)
        if self._frame_lost:
            level = DiagnosticStatus.ERROR
            lines.insert(0, f"TF does not know the patient frame in {self._parameters.planning_frame!r}")
        message = "; ".join(lines) or f"{len(held)} objects kept"
        if level != self._level:
            self._level = level
            (self._log.info if level == DiagnosticStatus.OK else self._log.warning)("condition", message)
        pairs = [KeyValue(key=str(key), value=str(value)) for key, value in values.items()]
        name = self.get_fully_qualified_name()
        status = DiagnosticStatus(level=level, name=name, message=message, hardware_id="threedme_ros", values=pairs)
        self._diagnostics.publish(diagnostics_message(self.get_clock().now().to_msg(), status))


def main(args: list[str] | None = None) -> int:
    return run_node(PlanningScene, args)
