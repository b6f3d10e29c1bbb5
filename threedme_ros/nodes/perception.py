"""The perception node: a volume topic in, masks and anatomy out.

| topic | type | QoS (reliability, durability, depth) | |
|---|---|---|---|
| `volume` | CompressedImage | reliable, volatile, 1 | subscribed while active |
| `labels` | CompressedImage | reliable, transient local, 1 | uint8 NIfTI on exactly the input grid |
| `confidence` | CompressedImage | reliable, transient local, 1 | uint8 0..255, same grid |
| `label_info` | String | reliable, transient local, 1 | JSON: structures, checkpoint, engine, notice; on change |
| `trace` | String | reliable, transient local, 1 | JSON, one a volume: stamp, checkpoint, engine, precision, SHA-256 |
| `overlay` | Image rgb8 | reliable, transient local, 1 | three planes |
| `anatomy/points` | PointCloud2 | reliable, transient local, 1 | x y z [m] rgb label confidence |
| `anatomy/obstacles` | PointCloud2 | reliable, transient local, 1 | no-go anatomy grown by its margin [m], repeated |
| `anatomy/markers` | MarkerArray | reliable, transient local, 1 | one TRIANGLE_LIST a structure [m] |
| `/diagnostics` | DiagnosticArray | reliable, volatile, 10 | 1 Hz, and after every volume: `Health`, `Tape` |

Clicks (`/clicked_point`, `prompt/*`, `~/clear_prompts`): `threedme_ros.nodes.prompting`.

Services: `~/segment` (Trigger: the latest volume again), `~/set_enabled` (SetBool). Parameters:
`threedme_ros.nodes.parameters.PerceptionParameters`, and `margin_mm.<structure>` once configured.
Names are relative, so a namespace works; results carry the stamp and frame of their volume.

What hangs is left behind (`threedme_ros.nodes.watchdog`). A node that has no engine left deactivates itself: the last
anatomy stays latched, `/diagnostics` say why, and activating or configuring it starts anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool, Trigger

from threedme_ros.geometry import crew
from threedme_ros.model.checkpoint import load_checkpoint
from threedme_ros.nodes import prompting
from threedme_ros.nodes.arrivals import Arrivals
from threedme_ros.nodes.diagnostics import Health, diagnostics_message
from threedme_ros.nodes.engine_keeper import EngineKeeper
from threedme_ros.nodes.entry import run_node
from threedme_ros.nodes.lifecycle import ManagedNode
from threedme_ros.nodes.live_parameters import Change, LiveParameters
from threedme_ros.nodes.log_bridge import RosLogHandler
from threedme_ros.nodes.messages import NOTICE, label_info_message
from threedme_ros.nodes.outputs import OUTPUTS, Outputs
from threedme_ros.nodes.parameters import ParameterError, PerceptionParameters, declare_parameters, read_parameters
from threedme_ros.nodes.pipeline import Clouds, Results, Settings, matched_anatomy
from threedme_ros.nodes.prompting import Prompting
from threedme_ros.nodes.qos import VOLUMES, subscription_events
from threedme_ros.nodes.recording import Tape, with_record_parameter
from threedme_ros.nodes.steady_memory import keep_memory_steady
from threedme_ros.nodes.steady_timer import steady_timer
from threedme_ros.nodes.steps import run_all
from threedme_ros.nodes.volume_worker import VolumeWorker
from threedme_ros.nodes.watchdog import LeftBehind
from threedme_ros.share import DEMO_CHECKPOINT, share_path

RECORDED = {**OUTPUTS, **prompting.OUTPUTS, **dict.fromkeys(prompting.CLICKS, PointStamped)}
RECORDED |= {"volume": CompressedImage, "/diagnostics": DiagnosticArray}
TICK_S = 1.0
STOP_TIMEOUT_S = 20.0
"""For the volume and the click under way, together."""
RELEASE_TIMEOUT_S = 25.0
"""For that and for the end of the recording: `ros2 launch` and lifecycle managers wait for some 30 s."""


class PerceptionNode(ManagedNode):
    """See the module's tables. While active, all work on volumes happens on one worker thread."""

    def __init__(self, **kwargs) -> None:
        super().__init__("perception", **kwargs)
        declare_parameters(self, PerceptionParameters)
        self._health = Health()
        self._log_handler = RosLogHandler(self.log, self._health.warn)
        self._left_behind = LeftBehind()
        self._keeper: EngineKeeper | None = None
        self._worker: VolumeWorker | None = None
        self._warm_up_s = 0.0
        self._arrivals = Arrivals()
        self._volumes = None
        self._obstacle_timer = None
        self._live = LiveParameters(self, self._on_change)
        self._tape = Tape(self, RECORDED, self._left_behind)
        self._outputs = Outputs(self, self._tape, self._warn)
        self._prompting = Prompting(self, self._warn, self._left_behind)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady_timer(self, TICK_S, self._tick)
        self.create_service(Trigger, "~/segment", self._on_segment)
        self.create_service(SetBool, "~/set_enabled", self._on_set_enabled)

    def close(self) -> None:
        super().close()
        self._log_handler.close()
        self.log.flush(everything=True)

    @property
    def threads_left_behind(self) -> int:
        """Threads that hang: the process cannot join them."""
        return self._left_behind.count

    @property
    def _engine(self) -> dict[str, str]:
        """What runs now: engine, precision, agreement and those refused, which change when one fails at work."""
        return self._keeper.describe() if self._keeper else {}

    def configure(self) -> None:
        self._health.cleared()
        try:
            parameters = read_parameters(self, PerceptionParameters)
            checkpoint = load_checkpoint(parameters.checkpoint or share_path(DEMO_CHECKPOINT))
            anatomy = matched_anatomy(checkpoint.anatomy, parameters.anatomy)
            anatomy = self._live.declare_margins(anatomy)
            self._keeper = EngineKeeper(checkpoint, parameters, self._left_behind, self.alive)
            self._keeper.open()
            limits = parameters.limits
            self._prompting.configure(checkpoint, parameters.prompt_decoder, parameters.modality, limits)
            self._outputs.open()
            self._tape.start(parameters.record, parameters.record_limit_gb, self._on_recording_stopped)
            settings = Settings(parameters, anatomy)
            self._worker = VolumeWorker(self._keeper, settings, self._health, self, self._left_behind)
        except Exception:
            self.release()
            raise
        self.log.info("configured", f"configured: {self._engine}; {NOTICE}", **self._engine)

    def activate(self) -> None:
        self._keeper.forgive()
        self._warm_up_s = self._keeper.warm_up()
        crew.muster()

    def activated(self) -> None:
        self._publish_label_info()
        self._worker.start(self._warm_up_s)
        self._prompting.start()
        self._arrivals = Arrivals()  # what was sent while nobody listened was not lost
        events = subscription_events(self, "volume", VOLUMES, self._warn, self._on_sources)
        self._volumes = self.create_subscription(
            CompressedImage, "volume", self._on_volume, VOLUMES, event_callbacks=events
        )
        period_s = self._worker.settings.parameters.obstacle_period_s
        self._obstacle_timer = steady_timer(self, period_s, self._repeat_obstacles)
        self._health.listening(True)
        topic = self._volumes.topic_name
        self.log.info("active", f"active: waiting for {topic}", topic=topic)

    def halt(self) -> None:
        end_s = monotonic() + STOP_TIMEOUT_S
        run_all(
            self._stop_listening,
            self._prompting.close,  # before the volumes are waited for: clicks end meanwhile
            self._stop_volumes,
            lambda: self._prompting.stop(max(end_s - monotonic(), 0.0)),
        )

    def release(self) -> None:
        end_s = monotonic() + RELEASE_TIMEOUT_S
        run_all(
            self.halt,
            self._prompting.release,
            self._outputs.close,
            self._health.withdrawn,
            self._live.release,
            self._close_engine,
            lambda: self._tape.stop(max(end_s - monotonic(), 0.0)),
        )

    def _stop_listening(self) -> None:
        if self._volumes:
            self.destroy_subscription(self._volumes)
        if self._obstacle_timer:
            self.destroy_timer(self._obstacle_timer)
        self._volumes = self._obstacle_timer = None
        self._health.listening(False)

    def _stop_volumes(self) -> None:
        if self._worker:
            self._worker.stop(STOP_TIMEOUT_S)

    def _close_engine(self) -> None:
        keeper, self._keeper, self._worker = self._keeper, None, None
        if keeper:
            keeper.close()

    def went_wrong(self, line: str) -> None:
        self._health.error(line)

    def _tick(self) -> None:
        if self._worker and (reason := self._worker.check()):
            self.trigger_deactivate()
            self._health.error(f"deactivated: {reason}")
            self.log.error("deactivated", f"deactivated: {reason}")
        self._prompting.check()
        self.log.flush()
        self._publish_diagnostics()

    # Results, called from the worker.

    def alive(self) -> bool:
        return self.context.ok()

    def now_ns(self) -> int:
        return self.get_clock().now().nanoseconds

    def publish_results(self, results: Results, check: Callable[[], None]) -> None:
        self._publish_label_info(only_if_changed=True)  # another engine may have taken over
        self._outputs.results(results, check)
        self._prompting.new_volume(results.volume, results.header)

    def publish_clouds(self, clouds: Clouds, check: Callable[[], None]) -> None:
        self._outputs.clouds(clouds, check)

    def record(self, topic: str, message: object) -> None:
        """``message`` was published or received by another part of the node."""
        self._tape.put({topic: message})

    def publish_health(self) -> None:
        self._publish_diagnostics()

    def _publish_diagnostics(self) -> None:
        stale_after_s = self.get_parameter("stale_after_s").value
        name = self.get_fully_qualified_name()
        watched = self._worker.describe() if self._worker else {}
        shown = {**self._engine, **watched, **self._prompting.describe()}
        shown["threads_left_behind"] = self.threads_left_behind
        status = self._health.status(name, self.state, stale_after_s, shown)
        # of its own: what planning trusts must not fall with a full disk
        recording = self._tape.status(f"{name}: recording")
        message = diagnostics_message(self.get_clock().now().to_msg(), status, *recording)
        self._diagnostics.publish(message)
        self.record("/diagnostics", message)

    def _publish_label_info(self, only_if_changed: bool = False) -> None:
        message = label_info_message(self._worker.settings.anatomy, self._engine)
        self._outputs.label_info(message, only_if_changed)

    def _repeat_obstacles(self) -> None:
        if obstacles := self._worker.last_obstacles:
            self._outputs.obstacles_again(obstacles)

    def _on_volume(self, message: CompressedImage, info) -> None:
        self._health.count("overwritten", self._arrivals.missed(info))
        self.record("volume", message)  # before its results
        self._worker.submit(message)

    def _on_sources(self, connected: int) -> None:
        self._health.sources = connected
        self._publish_diagnostics()

    def _on_recording_stopped(self, reason: str) -> None:
        self._health.warn(reason)
        self.log.error("recording_stopped", reason)

    def _warn(self, line: str) -> None:
        self._health.warn(line)
        self.log.warning("warning", line, source=line.partition(":")[0])

    # Services and parameters.

    def _on_segment(self, request, response):
        response.success = self.state == "active" and self._worker.again()
        response.message = "queued" if response.success else f"no volume to segment ({self.state})"
        return response

    def _on_set_enabled(self, request, response):
        result = self.set_parameters([Parameter("enabled", value=request.data)])[0]
        response.success = result.successful
        response.message = result.reason or ("enabled" if request.data else "disabled")
        return response

    def _on_change(self, change: Change, margins: bool) -> None:
        if self._worker is None:
            return
        self._worker.change(change(self._worker.settings))
        if margins and self.state == "active":
            self._publish_label_info()


def main(args: list[str] | None = None) -> int:
    """Takes a plain ``--record DIR`` beside the ROS arguments, for the parameter `record`."""
    keep_memory_steady()
    try:
        args = with_record_parameter(sys.argv if args is None else args)
    except ParameterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return run_node(PerceptionNode, args)
