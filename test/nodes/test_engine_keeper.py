import threading

import pytest

pytest.importorskip("rclpy")
from threedme_ros.inference.engines import EngineError
from threedme_ros.nodes import engine_keeper
from threedme_ros.nodes.engine_keeper import AbandonedError, EngineKeeper
from threedme_ros.nodes.parameters import PerceptionParameters
from threedme_ros.nodes.watchdog import HangError, LeftBehind

ENGINES = ("a", "b")


class Segmenter:
    """Takes the first engine that hung least; those in ``hangs_in`` wait for ``release`` while they warm up."""

    hangs_in: tuple[str, ...] = ()
    building = False

    def __init__(self, checkpoint, *, hung, opened, **options):
        if all(hung.get((name, "cpu"), 0) >= 2 for name in ENGINES):
            raise EngineError("no engine is left")
        self.name = min(ENGINES, key=lambda name: hung.get((name, "cpu"), 0))
        self.options, self.closed = options, threading.Event()
        opened(self.name, "cpu")
        checkpoint.made.append(self)
        checkpoint.gate.wait(10)

    def warm_up(self):
        if self.name in self.hangs_in:
            self.closed.wait(10)
        return 0.5

    def describe(self):
        return {"engine": self.name}

    def retire(self):
        self.retired = True

    def close(self):
        self.closed.set()


class Checkpoint:
    def __init__(self):
        self.made, self.gate = [], threading.Event()
        self.gate.set()


@pytest.fixture
def checkpoint(monkeypatch):
    monkeypatch.setattr(engine_keeper, "Segmenter", Segmenter)
    monkeypatch.setattr(Segmenter, "hangs_in", ())
    return Checkpoint()


def keeper_of(checkpoint, left_behind=None, **parameters):
    return EngineKeeper(
        checkpoint, PerceptionParameters(build_timeout_s=1.0, **parameters), left_behind or LeftBehind()
    )


def test_one_segmenter_until_it_is_abandoned(checkpoint):
    keeper = keeper_of(checkpoint, threads=3)
    assert (keeper.describe(), keeper.building) == ({}, True)
    keeper.open()
    first = keeper.segmenter()
    assert keeper.segmenter() is first
    assert (keeper.describe(), keeper.building, first.options["threads"]) == ({"engine": "a"}, False, 3)
    assert keeper.abandon() == "a on cpu"
    assert (keeper.hangs, keeper.describe(), keeper.building) == (1, {}, True)
    assert first.retired and not first.closed.is_set()
    assert keeper.segmenter().name == "b"
    keeper.forgive()
    assert keeper.hangs == 0
    keeper.close()
    assert checkpoint.made[1].closed.is_set()


def test_what_was_given_up_while_it_was_made_is_closed_and_never_used(checkpoint):
    keeper = keeper_of(checkpoint)
    checkpoint.gate.clear()
    outcome = []

    def make():
        try:
            outcome.append(keeper.segmenter())
        except AbandonedError as error:
            outcome.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    while not checkpoint.made:
        pass
    assert keeper.abandon() == "a on cpu"
    checkpoint.gate.set()
    thread.join(10)
    assert isinstance(outcome[0], AbandonedError)
    assert checkpoint.made[0].closed.is_set()
    assert keeper.segmenter().name == "b"


def test_engine_that_hangs_in_its_warm_up_makes_way(checkpoint, monkeypatch):
    monkeypatch.setattr(Segmenter, "hangs_in", ("a",))
    keeper = keeper_of(checkpoint)
    keeper.open()
    assert keeper.warm_up() == 0.5
    assert (keeper.describe(), keeper.hangs) == ({"engine": "b"}, 1)


def test_too_many_hangs_are_an_error_and_the_next_attempt_starts_anew(checkpoint, monkeypatch):
    monkeypatch.setattr(Segmenter, "hangs_in", ENGINES)
    keeper = keeper_of(checkpoint, max_hangs=1)
    with pytest.raises(HangError, match="warming up the engine: b on cpu hangs, as 2 in all did"):
        keeper.warm_up()
    monkeypatch.setattr(Segmenter, "hangs_in", ())
    keeper.forgive()
    assert keeper.warm_up() == 0.5
    assert keeper.describe() == {"engine": "a"}
