import numpy as np
import pytest

from threedme_ros.inference.engines import ENGINES, EngineError, EngineMemoryError
from threedme_ros.inference.engines.chain import Candidate, EngineChain, preference


class Fake:
    precision, device = "fp32", "cpu"

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    def run(self, window: np.ndarray):
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def passes(engine: Fake, window_voxels: int) -> float:
    return 1.0


def chain_of(*names: str, gate=passes, window_voxels: int = 800, least_voxels: int = 200) -> EngineChain:
    candidates = [Candidate(lambda name=name: Fake(name)) for name in names]
    return EngineChain(candidates, gate=gate, window_voxels=window_voxels, least_voxels=least_voxels)


def absent() -> Fake:
    raise EngineError("tensorrt: tensorrt not installed; pip install tensorrt")


def test_engines_on_the_gpu_come_first_and_a_named_one_before_all() -> None:
    cpu = [("openvino", "cpu"), ("onnxruntime", "cpu"), ("torch", "cpu")]
    assert preference("auto", "cpu") == cpu
    assert preference("auto", "cuda:1")[0] == ("tensorrt", "cuda:1")
    assert preference("auto", "cuda:1")[-3:] == cpu
    assert preference("torch", "cpu") == [("torch", "cpu"), ("openvino", "cpu"), ("onnxruntime", "cpu")]
    assert {name for name, _ in preference("auto", "cuda")} == set(ENGINES)
    with pytest.raises(ValueError, match="engine 'tpu': expected auto or one of"):
        preference("tpu", "cpu")


def test_the_first_that_can_be_made_and_passes_runs() -> None:
    def gate(engine: Fake, window_voxels: int) -> float:
        if engine.name == "a":
            raise EngineError("a: labels as torch on 12.00%")
        return 0.998

    made = [Fake("a"), Fake("b")]
    candidates = [Candidate(absent), *(Candidate(lambda engine=engine: engine) for engine in made), Candidate(absent)]
    chain = EngineChain(candidates, gate=gate, window_voxels=800, least_voxels=200)
    assert chain.engine is made[1]
    assert (made[0].closed, made[1].closed) == (True, False)
    assert chain.agreement == 0.998
    assert chain.refused == ["a: labels as torch on 12.00%"]


def test_a_required_engine_that_is_absent_is_the_callers_error() -> None:
    with pytest.raises(EngineError, match="pip install tensorrt"):
        EngineChain(
            [Candidate(absent, required=True), Candidate(lambda: Fake("b"))],
            gate=passes,
            window_voxels=800,
            least_voxels=200,
        )


def test_no_engine_left_names_every_reason() -> None:
    def gate(engine: Fake, window_voxels: int) -> float:
        raise EngineError(f"{engine.name}: no")

    with pytest.raises(EngineError, match=r"^no engine is usable: a: no; b: no$"):
        chain_of("a", "b", gate=gate)


def test_out_of_memory_halves_the_window_then_takes_the_next_engine(caplog) -> None:
    chain, tried = chain_of("gpu", "cpu"), []

    def work(engine: Fake, window_voxels: int) -> str:
        tried.append((engine.name, window_voxels))
        if engine.name == "gpu":
            raise EngineMemoryError("gpu: out of memory", min(window_voxels, 600))
        return "labels"

    first = chain.engine
    assert chain.attempt(work) == "labels"
    assert tried == [("gpu", 800), ("gpu", 300), ("cpu", 800)]  # 150 holds no halo; the next starts anew
    assert first.closed
    assert chain.refused == ["gpu: out of memory"]
    assert "gpu: out of memory; going on with windows of at most 300 voxels" in caplog.messages
    assert "gpu: out of memory; going on with cpu on cpu" in caplog.messages
    assert chain.attempt(work) == "labels"
    assert tried[3:] == [("cpu", 800)]


def test_a_window_that_fits_stays_for_the_volumes_to_come() -> None:
    chain, tried = chain_of("gpu"), []

    def work(engine: Fake, window_voxels: int) -> None:
        tried.append(window_voxels)
        if window_voxels > 400:
            raise EngineMemoryError("gpu: out of memory", window_voxels)

    chain.attempt(work)
    chain.attempt(work)
    assert tried == [800, 400, 400]
    assert chain.engine.name == "gpu"


def test_out_of_memory_at_the_gate_is_a_smaller_window_too() -> None:
    def gate(engine: Fake, window_voxels: int) -> float:
        if window_voxels > 200:
            raise EngineMemoryError("gpu: out of memory", window_voxels)
        return 1.0

    chain = chain_of("gpu", "cpu", gate=gate)
    assert (chain.engine.name, chain.window_voxels) == ("gpu", 200)


def test_the_last_engine_stays_usable_after_it_failed() -> None:
    chain = chain_of("a")
    answers = iter([EngineError("a: no"), "labels"])

    def work(engine: Fake, window_voxels: int) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(EngineError, match="a: no"):
        chain.attempt(work)
    assert chain.attempt(work) == "labels"
    assert not chain.engine.closed


def test_an_engine_whose_successors_are_all_refused_comes_back() -> None:
    def gate(engine: Fake, window_voxels: int) -> float:
        if engine.name != "a":
            raise EngineError(f"{engine.name}: no")
        return 1.0

    chain = chain_of("a", "b", "c", gate=gate)

    def fails(engine: Fake, window_voxels: int) -> None:
        raise EngineError("a: hiccup")

    with pytest.raises(EngineError, match="a: hiccup"):
        chain.attempt(fails)
    assert (chain.engine.name, chain.engine.closed) == ("a", False)
    assert chain.attempt(lambda engine, window_voxels: engine.name) == "a"


def test_a_shortage_in_which_no_engine_can_be_made_is_over_when_it_is_over() -> None:
    short, made = [], []

    def make(name: str) -> Fake:
        if short:
            raise EngineError(f"{name}: cannot be made")
        made.append(Fake(name))
        return made[-1]

    def work(engine: Fake, window_voxels: int) -> tuple[str, int]:
        if short or engine.closed:
            raise EngineError(f"{engine.name}: {'closed' if engine.closed else 'failed'}")
        return engine.name, window_voxels

    candidates = [Candidate(lambda: make("a")), Candidate(lambda: make("b"))]
    chain = EngineChain(candidates, gate=passes, window_voxels=800, least_voxels=200)
    short.append(True)
    with pytest.raises(EngineError, match=r"^a: failed$"):
        chain.attempt(work)
    with pytest.raises(EngineError, match=r"^a: cannot be made$"):
        chain.attempt(work)
    short.clear()
    assert chain.attempt(work) == ("a", 800)
    assert chain.attempt(work) == ("a", 800)
    assert [engine.closed for engine in made] == [True, False]
    assert chain.refused == ["a: failed"]


def test_what_is_no_engines_failure_is_not_hidden() -> None:
    chain = chain_of("a", "b")
    with pytest.raises(ZeroDivisionError):
        chain.attempt(lambda engine, window_voxels: 1 / 0)
    assert chain.engine.name == "a"


def test_building_covers_making_checking_and_what_the_engine_builds() -> None:
    seen = []
    chain = None

    class Builds(Fake):
        building = False

    def make() -> Fake:
        seen.append(chain.building if chain else None)
        return Builds("b")

    def gate(engine: Fake, window_voxels: int) -> float:
        seen.append(chain.building if chain else None)
        return 1.0

    chain = EngineChain(
        [Candidate(lambda: Builds("a")), Candidate(make)], gate=gate, window_voxels=800, least_voxels=200
    )
    assert not chain.building
    chain.engine.building = True
    assert chain.building

    def work(engine: Fake, _: int) -> str:
        if engine.name == "a":
            raise EngineError("a: crashed")
        return engine.name

    assert chain.attempt(work) == "b"
    assert seen == [None, True, True]
    assert not chain.building


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError(24, "Too many open files")])
def test_a_gate_that_runs_out_of_something_refuses_that_engine_only(error: Exception) -> None:
    def gate(engine: Fake, window_voxels: int) -> float:
        if engine.name == "a":
            raise error
        return 1.0

    chain = chain_of("a", "b", gate=gate)
    assert chain.engine.name == "b"
    assert chain.refused == [str(error)]
