"""Who works on the volumes: one thread and a slot of one, watched, and left behind for another when it hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import prod

from sensor_msgs.msg import CompressedImage, PointCloud2

from threedme_ros.geometry import crew
from threedme_ros.inference.segmenter import WARM_UP_SHAPE
from threedme_ros.nodes import pipeline
from threedme_ros.nodes.diagnostics import Health
from threedme_ros.nodes.engine_keeper import EngineKeeper
from threedme_ros.nodes.messages import MessageError, check_volume_header
from threedme_ros.nodes.stamps import StampWatch
from threedme_ros.nodes.volume_work import ENGINE, REBUILD, REFRESH, Outlet, VolumeWork
from threedme_ros.nodes.watchdog import Durations, LeftBehind, Watch
from threedme_ros.nodes.worker import Worker

VOLUME, STANDBY = "volume", "standby thread"
NAMES = {id(REFRESH): "clouds", id(REBUILD): "engine"}


class VolumeWorker:
    """Takes volume messages without blocking and hands the newest to `VolumeWork`; every volume is counted once.

    Of a thread that was given up nothing is published or counted any more.
    """

    def __init__(
        self,
        keeper: EngineKeeper,
        settings: pipeline.Settings,
        health: Health,
        outlet: Outlet,
        left_behind: LeftBehind,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: s, never steps."""
        self._clock = clock
        self._keeper, self._health, self._outlet, self._left_behind = keeper, health, outlet, left_behind
        self._work = VolumeWork(keeper, settings, health, outlet)
        self._durations = Durations()
        self._stamps = StampWatch()
        self._worker: Worker | None = None
        self._watch = self._new_watch()
        self._standby: tuple[Worker, Watch] | None = None
        """Where memory runs out a thread may never start, and who starts it waits for ever: so one is there before."""
        self._last_message: CompressedImage | None = None
        self._hangs_elsewhere = 0

    @property
    def settings(self) -> pipeline.Settings:
        return self._work.settings

    @property
    def last_obstacles(self) -> PointCloud2 | None:
        return self._work.last_obstacles

    def start(self, warm_up_s: float = 0.0) -> None:
        """warm_up_s: what the engine's first volume took; as long a time is nothing odd."""
        self._durations.warmed_up(warm_up_s, prod(WARM_UP_SHAPE))
        self._work.hopeless, self._hangs_elsewhere = "", 0
        self._worker, self._watch = self._hand()
        self._standby = self._hand()
        self._refresh()

    def stop(self, timeout_s: float) -> None:
        """Joins the thread; a waiting volume is counted as ignored. A thread still busy then is left behind."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._count_dropped(worker.close(), "ignored")
            if not worker.joined(timeout_s) and self._watch.give_up():
                self._leave(worker, f"still busy after {timeout_s:.0f} s")
        standby, self._standby = self._standby, None
        if standby is not None:
            standby[0].close()

    def submit(self, message: CompressedImage) -> None:
        """Never blocks. What the header alone disqualifies is refused here, so it cannot replace a good volume."""
        self._health.seen()
        if self._worker is None:
            self._health.count("ignored")
            return
        if not self.settings.parameters.enabled:
            self._health.disabled()
            return
        try:
            check_volume_header(message)
        except MessageError as error:
            self._work.refuse(error, message.header)
            return
        stamp = message.header.stamp
        odd = self._stamps.look(stamp.sec * 10**9 + stamp.nanosec, self._outlet.now_ns())
        self._health.stamped(odd, self._stamps.counts)
        if odd:
            self._outlet.log.warning("stamp_odd", odd, stamp=f"{stamp.sec}.{stamp.nanosec:09d}")
        self._last_message = message
        self._count_dropped(self._worker.submit(message), "replaced")

    def again(self) -> bool:
        """Segment the latest volume once more; False if there was none yet, or none is taken."""
        if self._last_message is None or self._worker is None:
            return False
        self._health.seen()
        if self.settings.parameters.enabled:
            self._count_dropped(self._worker.submit(self._last_message), "replaced")
        else:
            self._health.disabled()
        return True

    def change(self, settings: pipeline.Settings) -> None:
        """From the next volume on, and for the clouds of the last one."""
        self._work.settings = settings
        self._refresh()

    def check(self) -> str:
        """At least once a second, from the thread that submits: leave behind what hangs, go on with another engine.

        Returns why there is no going on, empty if there is.
        """
        if self._worker is None:
            return ""
        overdue = self._watch.overdue(self._keeper.building)
        if overdue and self._watch.give_up():
            worker, self._worker = self._worker, None
            waiting = worker.close()
            reason = self._leave(worker, overdue)
            if self._hangs > self.settings.parameters.max_hangs:
                self._count_dropped(waiting, "ignored")
                return f"gave up after {self._hangs} hangs; the last one: {reason}"
            if self._standby is None:
                self._count_dropped(waiting, "ignored")
                return f"no thread stands by to go on; {reason}"
            (self._worker, self._watch), self._standby = self._standby, None
            self._worker.submit(waiting or REBUILD)
        return self._work.hopeless

    def describe(self) -> dict[str, object]:
        """What diagnostics show: who works on what for how long, volumes in hand, hangs since the activation."""
        working = self._watch.running and self._watch.what == VOLUME
        return {
            "watchdog": self._watch.describe() if self._worker else "off",
            "volumes_in_work": working + self._worker.waiting if self._worker else 0,
            "hangs": self._hangs,
        }

    @property
    def _hangs(self) -> int:
        return self._keeper.hangs + self._hangs_elsewhere

    def _hand(self) -> tuple[Worker, Watch]:
        """A thread that waits for work, and the watch over it."""
        watch = self._new_watch()
        return Worker(partial(self._run, watch), "segmentation"), watch

    def _new_watch(self) -> Watch:
        return Watch(self.settings.parameters.limits, self._durations, self._clock)

    def _leave(self, worker: Worker, overdue: str) -> str:
        """``worker``, whose job was just given up, is left behind; returns what was said about it."""
        self._left_behind.add(worker.thread)
        stage = self._watch.stage
        if stage in (ENGINE, pipeline.NETWORK):
            stuck = self._keeper.abandon()
        else:  # the engine is not to blame, and nobody is in it
            self._hangs_elsewhere += 1
            crew.relieve()
            stuck = stage
        reason = f"{self._watch.what}: {stuck} hangs: {overdue}; its thread is left behind"
        (self._health.failed if self._watch.what == VOLUME else self._health.error)(reason)
        self._outlet.log.error("hang", reason, what=self._watch.what)
        return reason

    def _run(self, watch: Watch, job: CompressedImage | object) -> None:
        """On the worker's thread: whatever happens, it lives on and a volume is counted."""
        is_volume = isinstance(job, CompressedImage)
        watch.begin(VOLUME if is_volume else NAMES[id(job)])
        try:
            if self._standby is None:  # taken after a hang
                watch.enter(STANDBY)
                with suppress(RuntimeError):  # no thread can be started now: the next hang will be the end of it
                    self._standby = self._hand()
            tell = self._work.do(job, watch)
        except BaseException:  # one error after the other, as when memory is out: not even the first could be told
            tell = partial(self._health.failed if is_volume else self._health.error, "failed, and could not say why")
        if not watch.end():
            return
        try:
            tell()
        except Exception as error:  # it was counted before that
            self._health.error(f"not told: {type(error).__name__}")
        self._refresh()

    def _refresh(self) -> None:
        """Whatever became of the job that took its place: the clouds follow the margins that are shown."""
        worker = self._worker
        if worker is not None and self._work.outdated:
            worker.offer(REFRESH)

    def _count_dropped(self, job: CompressedImage | object | None, what: str) -> None:
        if isinstance(job, CompressedImage):
            self._health.count(what)
