"""What is done with one volume, and what is told of it: which is refused, and what stays when one fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from time import monotonic, perf_counter
from typing import Protocol

from sensor_msgs.msg import CompressedImage, PointCloud2
from std_msgs.msg import Header

from threedme_ros.inference.engines import EngineError
from threedme_ros.nodes import pipeline
from threedme_ros.nodes.diagnostics import Health
from threedme_ros.nodes.engine_keeper import EngineKeeper
from threedme_ros.nodes.event_log import EventLog
from threedme_ros.nodes.watchdog import Watch
from threedme_ros.volume import VolumeError

REFRESH = object()
"""The job that builds the clouds of the last result again, after a margin or a threshold changed."""
REBUILD = object()
"""The job that makes an engine, after one hung."""
ENGINE, PUBLISHING = "engine", "publishing"
"""Stages of a job, beside those of `pipeline.process`."""

REFUSALS_TOLD_S = 0.1
"""A flood of volumes that are refused is no flood of diagnostics."""

Tell = Callable[[], None]


class Outlet(Protocol):
    """Where results go: the node. Called from the worker thread, except `publish_health`.

    check(): to be called before each message; it raises once the job was given up.
    """

    def alive(self) -> bool: ...
    def now_ns(self) -> int: ...
    def publish_results(self, results: pipeline.Results, check: Callable[[], None]) -> None: ...
    def publish_clouds(self, clouds: pipeline.Clouds, check: Callable[[], None]) -> None: ...
    def publish_health(self) -> None: ...

    @property
    def log(self) -> EventLog: ...


class VolumeWork:
    """Segments a volume and publishes all of its results together; keeps the last ones.

    A bad volume costs one log line and a count; what was published before it stays. Nothing empty is ever published
    because of an error. hopeless: why no volume can be segmented any more, empty while one can.
    """

    def __init__(self, keeper: EngineKeeper, settings: pipeline.Settings, health: Health, outlet: Outlet) -> None:
        self.settings = settings
        self.hopeless = ""
        self._keeper, self._health, self._outlet = keeper, health, outlet
        self._last: pipeline.Results | None = None
        self._shown: pipeline.Settings | None = None
        self.last_obstacles: PointCloud2 | None = None
        self._refusal_told_s = -float("inf")

    @property
    def outdated(self) -> bool:
        """The clouds that are shown were made with other margins or thresholds than those of now: `REFRESH` is due."""
        return self._last is not None and self._shown is not self.settings

    def do(self, job: CompressedImage | object, watch: Watch) -> Tell:
        """Do ``job``, a volume message or one of the above; returns what counts it and tells of it.

        Nothing is published once ``watch`` gave the job up.
        """
        try:
            if job is REFRESH:
                return self._refresh(watch)
            watch.enter(ENGINE)
            segmenter = self._segmenter()
            return self._publish_health if job is REBUILD else self._segment(job, segmenter, watch)
        except VolumeError as error:
            return partial(self.refuse, error, job.header)
        except Exception as error:
            reason = f"{type(error).__name__}: {_one_line(error)}"
            return partial(self._fail, job, reason, traceback.format_exc())

    def refuse(self, error: VolumeError, header: Header) -> None:
        reason = _one_line(error)
        self._health.refused(reason)
        self._outlet.log.warning("volume_refused", f"volume refused: {reason}", **_volume(header))
        now_s = monotonic()
        if now_s - self._refusal_told_s >= REFUSALS_TOLD_S:  # the rest is in the next that the node sends anyway
            self._refusal_told_s = now_s
            self._publish_health()

    def _segmenter(self):
        try:
            return self._keeper.segmenter()
        except EngineError as error:  # made anew after a hang, and nothing is left that could be made
            self.hopeless = str(error)
            raise

    def _segment(self, message: CompressedImage, segmenter, watch: Watch) -> Tell:
        began, settings = perf_counter(), self.settings
        results = pipeline.process(message, segmenter, settings, watch.enter)
        watch.enter(PUBLISHING)
        # first: the timer repeats none older then
        self._last, self._shown, self.last_obstacles = results, settings, results.clouds.obstacles
        self._outlet.publish_results(results, partial(watch.enter, PUBLISHING))
        return partial(self._segmented, results, perf_counter() - began)

    def _refresh(self, watch: Watch) -> Tell:
        if self._last is not None:
            watch.enter(pipeline.SURFACES)
            self._shown = settings = self.settings  # if it fails, that is told, and not tried again and again
            clouds = pipeline.clouds(self._last.segmentation, settings, self._last.header)
            watch.enter(PUBLISHING)
            self.last_obstacles = clouds.obstacles
            self._outlet.publish_clouds(clouds, partial(watch.enter, PUBLISHING))
        return lambda: None

    def _segmented(self, results: pipeline.Results, seconds: float) -> None:
        segmentation, stamp = results.segmentation, results.header.stamp
        latency_s = (self._outlet.now_ns() - stamp.sec * 10**9 - stamp.nanosec) / 1e9
        self._health.segmented(latency_s, segmentation.warnings, segmentation.update, segmentation.scope)
        log, made_by, shape = self._outlet.log, segmentation.made_by, segmentation.labels.shape
        for number, warning in enumerate(segmentation.warnings):
            log.warning("volume_warning", warning, source=number, **_volume(results.header))
        log.info(
            "volume_segmented",
            f"segmented a volume of {shape} voxels in {seconds:.2f} s ({segmentation.update} pass)",
            **_volume(results.header),
            shape="x".join(str(n) for n in shape),
            seconds=f"{seconds:.3f}",
            latency_s=f"{latency_s:.3f}",
            update=segmentation.update,
            engine=made_by.engine,
            precision=made_by.precision,
            checkpoint=made_by.checkpoint,
        )
        self._publish_health()

    def _fail(self, job: CompressedImage | object, reason: str, trace: str) -> None:
        is_volume = isinstance(job, CompressedImage)
        (self._health.failed if is_volume else self._health.error)(reason)
        if self._outlet.alive():  # else the process is ending: nothing can be published, nobody listens
            if is_volume:
                self._outlet.log.error("volume_failed", f"not segmented: {reason}", trace=trace, **_volume(job.header))
            else:
                self._outlet.log.error("job_failed", reason, trace=trace)
            self._publish_health()

    def _publish_health(self) -> None:
        self._outlet.publish_health()


def _volume(header: Header) -> dict[str, str]:
    """What a log line tells of a volume."""
    return {"stamp": f"{header.stamp.sec}.{header.stamp.nanosec:09d}", "frame": header.frame_id}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
