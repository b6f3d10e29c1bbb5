"""The failure policy: which volume is segmented, which is refused, and what stays when one fails."""

from __future__ import annotations

import traceback
from time import perf_counter
from typing import Protocol

from sensor_msgs.msg import CompressedImage, PointCloud2

from threedme_ros.inference.incremental import IncrementalSegmenter
from threedme_ros.inference.segmenter import Segmenter
from threedme_ros.nodes import pipeline
from threedme_ros.nodes.diagnostics import Health
from threedme_ros.nodes.messages import MessageError, check_volume_header
from threedme_ros.nodes.worker import Worker
from threedme_ros.volume import VolumeError

PROGRESS_PERIOD_S = 5.0
REFRESH = object()
"""The job that builds the clouds of the last result again, after a margin or a threshold changed."""


class Outlet(Protocol):
    """Where results go: the node. Called from the worker thread, except `publish_health`."""

    def alive(self) -> bool: ...
    def now_s(self) -> float: ...
    def publish_results(self, results: pipeline.Results) -> None: ...
    def publish_clouds(self, clouds: pipeline.Clouds) -> None: ...
    def publish_health(self) -> None: ...
    def get_logger(self): ...


class VolumeWorker:
    """Takes volume messages without blocking, segments the newest, publishes all of a volume's results together.

    A bad volume costs one log line and a count; what was published before it stays. Nothing empty is ever published
    because of an error.
    """

    def __init__(
        self,
        segmenter: Segmenter | IncrementalSegmenter,
        settings: pipeline.Settings,
        health: Health,
        outlet: Outlet,
    ) -> None:
        self.settings = settings
        self._segmenter = segmenter
        self._health = health
        self._outlet = outlet
        self._worker: Worker | None = None
        self._last_message: CompressedImage | None = None
        self._last: pipeline.Results | None = None
        self.last_obstacles: PointCloud2 | None = None

    def start(self) -> None:
        self._worker = Worker(self._run, "segmentation")

    def stop(self, timeout_s: float) -> None:
        """Joins the thread; a waiting volume is counted as ignored. TimeoutError if the engine hangs."""
        if self._worker is None:
            return
        worker, self._worker = self._worker, None
        self._count_dropped(worker.stop(timeout_s), "ignored")

    def submit(self, message: CompressedImage) -> None:
        """Never blocks. What the header alone disqualifies is refused here, so it cannot replace a good volume."""
        self._health.count("seen")
        if self._worker is None or not self.settings.parameters.enabled:
            self._health.count("ignored")
            return
        try:
            check_volume_header(message)
        except MessageError as error:
            self._refuse(error)
            return
        self._last_message = message
        self._count_dropped(self._worker.submit(message), "replaced")

    def again(self) -> bool:
        """Segment the latest volume once more; False if there was none yet."""
        if self._last_message is None:
            return False
        self.submit(self._last_message)
        return True

    def change(self, settings: pipeline.Settings) -> None:
        """From the next volume on, and for the clouds of the last one."""
        self.settings = settings
        if self._worker is not None:
            self._worker.offer(REFRESH)

    def _run(self, job: CompressedImage | object) -> None:
        try:
            if job is REFRESH:
                self._refresh()
            else:
                self._segment(job)
        except VolumeError as error:
            self._refuse(error)
        except Exception as error:
            if not self._outlet.alive():  # the process is ending: nothing can be published, nobody listens
                return
            reason = f"{type(error).__name__}: {_one_line(error)}"
            (self._health.error if job is REFRESH else self._health.failed)(reason)
            self._outlet.get_logger().error(f"not segmented: {reason}\n{traceback.format_exc()}")
            self._outlet.publish_health()

    def _segment(self, message: CompressedImage) -> None:
        began = perf_counter()
        results = pipeline.process(message, self._segmenter, self.settings)
        self._outlet.publish_results(results)
        seconds = perf_counter() - began
        self._last, self.last_obstacles = results, results.clouds.obstacles
        stamp = message.header.stamp
        segmentation = results.segmentation
        warnings = segmentation.warnings
        acquired_s = stamp.sec + stamp.nanosec / 1e9
        self._health.segmented(self._outlet.now_s(), acquired_s, warnings, segmentation.update)
        for warning in warnings:
            self._outlet.get_logger().warning(warning)
        self._outlet.get_logger().info(
            f"segmented a volume of {segmentation.labels.shape} voxels in {seconds:.2f} s ({segmentation.update} pass)",
            throttle_duration_sec=PROGRESS_PERIOD_S,
        )
        self._outlet.publish_health()

    def _refresh(self) -> None:
        if self._last is None:
            return
        clouds = pipeline.clouds(self._last.segmentation, self.settings, self._last.header)
        self._outlet.publish_clouds(clouds)
        self.last_obstacles = clouds.obstacles

    def _refuse(self, error: VolumeError) -> None:
        reason = _one_line(error)
        self._health.refused(reason)
        self._outlet.get_logger().warning(f"volume refused: {reason}")
        self._outlet.publish_health()

    def _count_dropped(self, job: CompressedImage | object | None, what: str) -> None:
        if job is not None and job is not REFRESH:
            self._health.count(what)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
