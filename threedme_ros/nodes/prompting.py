"""Clicks on the robot: points from RViz in, the mask of one structure out. A part of the perception node.

| topic | type | QoS (reliability, durability, depth) | |
|---|---|---|---|
| `/clicked_point` | PointStamped | reliable, volatile, 10 | the structure is here [m]; RViz "Publish Point" |
| `/clicked_point_background` | PointStamped | reliable, volatile, 10 | it is not here [m]; a second such tool |
| `prompt/labels` | CompressedImage | reliable, transient local, 1 | uint8 NIfTI on exactly the input grid, 1 inside |
| `prompt/markers` | MarkerArray | reliable, transient local, 1 | the surface, and the clicks (green, red) [m] |

Service: `~/clear_prompts` (Trigger). The first click on a volume encodes it, each further one refines the same
structure on that encoding; clearing starts another structure. Clicks belong to the volume that was segmented last: when
another one arrives they are forgotten (the same voxels again are not another volume), and the last mask stays with its
own stamp. `~/set_enabled` false keeps a stream from changing the volume meanwhile.

A click in another frame than the volume's is brought there by TF, if tf2_ros is installed and knows the way.
"""

from __future__ import annotations

import threading
import traceback
from contextlib import suppress
from dataclasses import replace

import numpy as np
from geometry_msgs.msg import Point, PointStamped, Vector3
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import ColorRGBA, Header
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker, MarkerArray

from threedme_ros.anatomy import Anatomy, Role, Structure
from threedme_ros.geometry.surface import surface_meshes
from threedme_ros.inference.prompts import PromptSegmenter
from threedme_ros.model.checkpoint import Checkpoint
from threedme_ros.model.prompt_file import load_prompt_decoder
from threedme_ros.model.weights_file import CheckpointError
from threedme_ros.nodes.click_session import ClickError, Session
from threedme_ros.nodes.frame_watch import FrameWatch
from threedme_ros.nodes.messages import volume_message
from threedme_ros.nodes.parameters import ParameterError
from threedme_ros.nodes.qos import RESULTS, publisher_events
from threedme_ros.nodes.shapes import anatomy_markers
from threedme_ros.nodes.watchdog import Durations, LeftBehind, Limits, Watch
from threedme_ros.nodes.worker import Worker
from threedme_ros.share import DEMO_PROMPT_DECODER, share_path
from threedme_ros.volume import MM_PER_M, Volume, VolumeError

FOREGROUND_TOPIC, BACKGROUND_TOPIC = "/clicked_point", "/clicked_point_background"
LABELS_TOPIC, MARKERS_TOPIC = "prompt/labels", "prompt/markers"
CLICKS = (FOREGROUND_TOPIC, BACKGROUND_TOPIC)
OUTPUTS = {LABELS_TOPIC: CompressedImage, MARKERS_TOPIC: MarkerArray}
STRUCTURE = Anatomy([Structure(1, "prompt", (255, 210, 40), 0.0, Role.CONTEXT)])
CLICK_DIAMETER_M = 0.008
GREEN, RED = ColorRGBA(r=0.2, g=0.9, b=0.2, a=1.0), ColorRGBA(r=0.95, g=0.1, b=0.1, a=1.0)
UPDATE = object()


class Prompting:
    """Topics, the session, and a thread of its own, so that neither callbacks nor volumes wait for a click."""

    def __init__(self, node, warn, left_behind: LeftBehind) -> None:
        """node: the lifecycle node. warn(line): logs a line and shows it in diagnostics. left_behind: gets the threads
        that hang."""
        self._node, self._warn, self._left_behind = node, warn, left_behind
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._segmenter: PromptSegmenter | None = None
        self._limits = Limits(0.0, 0.0)
        self._watch = Watch(self._limits, Durations())
        self._encoding: Watch | None = None
        """Over a volume's encoding, before its first click: that may take long, as building an engine may."""
        self._frames: FrameWatch | None = None
        self._worker: Worker | None = None
        self._outputs: dict = {}
        self._subscriptions: list = []
        self._published: Session | None = None
        self._erase: Session | None = None
        """What was cleared and is still shown."""
        self._why_not = "not configured"
        self._state = "none"
        node.create_service(Trigger, "~/clear_prompts", self._on_clear)

    def configure(self, checkpoint: Checkpoint, decoder: str, modality: str, limits: Limits) -> None:
        """decoder: a file, or empty for the one that ships, which another checkpoint than the shipped one lacks.
        limits: what a click may take.

        Raises CheckpointError or FileNotFoundError for a named file that does not fit.
        """
        self._limits = limits
        try:
            loaded = load_prompt_decoder(decoder or share_path(DEMO_PROMPT_DECODER), checkpoint)
            self._segmenter = PromptSegmenter(checkpoint, loaded, modality=modality)
        except (CheckpointError, FileNotFoundError, ValueError) as error:
            if decoder:
                raise
            self._why_not = f"no prompt decoder for checkpoint {checkpoint.hash}: {error}"
        try:
            self._frames = self._frames or FrameWatch(self._node, "")
        except ParameterError:  # tf2_ros is missing: clicks in the patient frame still work
            self._frames = None
        for topic, kind in OUTPUTS.items():
            events = publisher_events(self._node, topic, RESULTS, self._warn)
            self._outputs[topic] = self._node.create_lifecycle_publisher(kind, topic, RESULTS, event_callbacks=events)

    def start(self) -> None:
        self._watch = Watch(self._limits, Durations())
        self._worker = Worker(self._run, "prompts")
        if self._erase:
            self._worker.submit(UPDATE)
        for topic, foreground in ((FOREGROUND_TOPIC, True), (BACKGROUND_TOPIC, False)):
            callback = self._on_foreground if foreground else self._on_background
            self._subscriptions.append(self._node.create_subscription(PointStamped, topic, callback, 10))

    def check(self) -> None:
        """At least once a second: a click that hangs is given up, its thread left behind, and clicks with it."""
        overdue = self._watch.overdue(building=self._encoding is self._watch)
        if overdue and self._watch.give_up():
            self._leave(f"hangs: {overdue}")

    def close(self) -> None:
        """No click comes in any more, and none is begun. Never waits."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        if self._worker:
            self._worker.close()

    def stop(self, timeout_s: float) -> None:
        """As `close`, and none is being worked on. A thread that hangs is left behind."""
        self.close()
        if self._worker and not self._worker.joined(timeout_s) and self._watch.give_up():
            self._leave("was still busy when the node stopped")
        self._worker = None

    def release(self) -> None:
        for publisher in self._outputs.values():
            self._node.destroy_lifecycle_publisher(publisher)
        with self._lock:
            self._outputs, self._segmenter, self._session = {}, None, None
            self._published = self._erase = None
            self._why_not, self._state = "not configured", "none"

    def new_volume(self, volume: Volume, header: Header) -> None:
        """``volume`` was segmented and published; from any thread."""
        with self._lock:
            session = self._session
        same = session is not None and session.shows(volume)
        with self._lock:
            if same and self._session is not None:
                self._session = replace(self._session, header=header)
                return
            dropped = len(self._session.points_m) if self._session else 0
            self._session = Session(volume, header)
            if dropped:
                self._state = "of an earlier volume"
        if dropped:
            said = f"the volume changed: {dropped} clicks forgotten, the next one starts anew"
            self._node.log.info("clicks_forgotten", said, clicks=dropped)

    def describe(self) -> dict[str, str]:
        """What diagnostics show."""
        with self._lock:
            made_by = self._segmenter.description if self._segmenter else ""
            return {"prompt": self._state if made_by else f"unavailable: {self._why_not}", "prompt_made_by": made_by}

    def clear(self) -> str:
        """Forget the clicks; the worker takes away what is shown of them. Returns what was done, in words."""
        with self._lock:
            count = len(self._session.points_m) if self._session else 0
            if self._session:
                self._session = replace(self._session, points_m=(), foreground=())
            self._erase = self._published or self._erase
            self._published, self._state = None, "none"
        if self._erase and self._worker:
            self._worker.submit(UPDATE)
        return f"{count} clicks cleared"

    def _on_clear(self, request, response):
        response.success, response.message = True, self.clear()
        self._show_health()
        return response

    def _on_foreground(self, message: PointStamped) -> None:
        self._on_click(message, True)

    def _on_background(self, message: PointStamped) -> None:
        self._on_click(message, False)

    def _on_click(self, message: PointStamped, foreground: bool) -> None:
        """Never blocks: TF is asked for what it knows now, and the network runs on the worker."""
        self._node.record(FOREGROUND_TOPIC if foreground else BACKGROUND_TOPIC, message)
        try:
            if self._segmenter is None:
                raise ClickError(self._why_not)
            with self._lock:
                session = self._session
                if session is None:
                    raise ClickError("no volume was segmented yet: expected one before the first click")
                point_m = self._in_patient_frame(message, session.volume.frame_id)
                self._session = session.clicked(point_m, foreground)
        except ClickError as error:
            self._warn(f"click refused: {error}")
            self._show_health()
            return
        if self._worker:
            self._worker.submit(UPDATE)

    def _in_patient_frame(self, message: PointStamped, patient: str) -> np.ndarray:
        point = np.array([message.point.x, message.point.y, message.point.z])
        frame_id = message.header.frame_id
        if frame_id == patient:
            return point
        if self._frames is None:
            raise ClickError(
                f"frame {frame_id[:80]!r}: expected {patient!r}; tf2_ros, which could bring it there, is not installed "
                "(apt install ros-$ROS_DISTRO-tf2-ros-py)"
            )
        matrix = self._frames.transform(frame_id, into=patient) if frame_id else None
        if matrix is None:
            raise ClickError(f"frame {frame_id[:80]!r}: expected {patient!r}, or one that TF can bring there")
        return matrix[:3, :3] @ point + matrix[:3, 3]

    def _leave(self, why: str) -> None:
        worker, self._worker = self._worker, None
        worker.close()
        self._left_behind.add(worker.thread)
        with self._lock:
            self._segmenter, self._why_not = None, f"the network of clicks {why}; configure anew"
        self._warn(f"clicks: {self._why_not}")

    def _show_health(self) -> None:
        """Now rather than with the next of the node's own, which fails openly if this one does."""
        with suppress(Exception):
            self._node.publish_health()

    def _run(self, job: object) -> None:
        """On the worker's thread: whatever happens, it lives on for the next click."""
        watch = self._watch
        watch.begin("click")
        try:
            self._take_away(watch)
            self._click(watch)
        except BaseException as error:  # one after the other, as when memory is out: even telling of it may fail
            with suppress(Exception):
                self._failed(error)
        finally:
            watch.end()

    def _take_away(self, watch: Watch) -> None:
        """Publish an empty mask for what was cleared."""
        erase = self._erase
        if erase is None or not self._outputs:
            return
        nothing = erase.volume.with_voxels(np.zeros(erase.volume.shape, np.uint8))
        labels = volume_message(nothing, erase.header.stamp)
        markers = _markers(nothing, replace(erase, points_m=(), foreground=()))
        if watch.given_up:
            return
        self._publish(labels, markers)
        with self._lock:
            if self._erase is erase:
                self._erase = None

    def _click(self, watch: Watch) -> None:
        with self._lock:
            session, segmenter = self._session, self._segmenter
        if segmenter is None or session is None or not session.points_m:  # cleared, or another volume, meanwhile
            return
        try:
            self._segment(session, segmenter, watch)
        except VolumeError as error:
            self._warn(f"click refused: {error}")
        except Exception as error:
            self._failed(error)
        self._show_health()

    def _failed(self, error: BaseException) -> None:
        if self._node.alive():  # else that is why
            self._warn(f"click failed: {type(error).__name__}: {error}")
            self._node.log.error("click_failed", f"{type(error).__name__}: {error}", trace=traceback.format_exc())

    def _segment(self, session: Session, segmenter: PromptSegmenter, watch: Watch) -> None:
        if segmenter.volume is not session.volume:
            self._encoding = watch
            try:
                segmenter.set_volume(session.volume)
            finally:
                if self._encoding is watch:  # else given up, and another thread's by now
                    self._encoding = None
        found = segmenter.click(np.array(session.points_m) * MM_PER_M, np.array(session.foreground))
        labels = volume_message(found.mask, session.header.stamp, description=segmenter.description)
        markers = _markers(found.mask, session)
        volume_ml = int(found.mask.voxels.sum()) * found.mask.grid.voxel_volume_ml
        with self._lock:
            current = self._session
            if watch.given_up or current is None or current.volume is not session.volume or not current.points_m:
                return  # cleared or overtaken by another volume while it was computed
            self._published = session
            self._state = f"{_counted(session)}, {volume_ml:.1f} ml"
        self._publish(labels, markers)
        clicks = len(session.points_m)
        self._node.log.info(
            "prompt", f"prompt: {_counted(session)}, {volume_ml:.1f} ml", clicks=clicks, volume_ml=f"{volume_ml:.1f}"
        )

    def _publish(self, labels: CompressedImage, markers: MarkerArray) -> None:
        for topic, message in ((LABELS_TOPIC, labels), (MARKERS_TOPIC, markers)):
            self._outputs[topic].publish(message)
            self._node.record(topic, message)


def _markers(mask: Volume, session: Session) -> MarkerArray:
    """The surface of ``mask`` and the clicks; what there is none of is deleted."""
    array = anatomy_markers(surface_meshes(mask, STRUCTURE), STRUCTURE, session.header)
    for name, side, colour in (("clicks", True, GREEN), ("clicks_background", False, RED)):
        points = [p for p, foreground in zip(session.points_m, session.foreground, strict=True) if foreground is side]
        marker = Marker(header=session.header, ns=name, id=0, type=Marker.SPHERE_LIST)
        marker.action = Marker.ADD if points else Marker.DELETE
        marker.pose.orientation.w = 1.0
        marker.scale = Vector3(x=CLICK_DIAMETER_M, y=CLICK_DIAMETER_M, z=CLICK_DIAMETER_M)
        marker.color = colour
        marker.points = [Point(x=x, y=y, z=z) for x, y, z in points]
        array.markers.append(marker)
    return array


def _counted(session: Session) -> str:
    count = len(session.points_m)
    return f"{count} click" if count == 1 else f"{count} clicks"
