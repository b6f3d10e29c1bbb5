import pytest

from threedme_ros.inference.engines import EngineError
from threedme_ros.inference.engines.per_shape import PerShape


def test_each_shape_is_built_once_and_the_one_used_longest_ago_goes_first():
    built, kept = [], PerShape("a", 2)

    def build(shape):
        built.append((shape, kept.shapes(), kept.building))
        return sum(shape)

    assert [kept.get(shape, build) for shape in [(1, 1), (2, 2), (1, 1), (3, 3), (1, 1)]] == [2, 4, 2, 6, 2]
    assert built == [((1, 1), [], True), ((2, 2), [(1, 1)], True), ((3, 3), [(1, 1)], True)]  # (2, 2) went before
    assert (kept.shapes(), kept.building) == ([(3, 3), (1, 1)], False)


def test_a_build_that_fails_is_tried_again_and_a_closed_one_builds_no_more():
    kept = PerShape("a", 1)

    def fails(_):
        raise MemoryError

    with pytest.raises(MemoryError):
        kept.get((1,), fails)
    assert (kept.get((1,), len), kept.building) == (1, False)
    kept.close()
    kept.close()
    with pytest.raises(EngineError, match=r"^a: the engine is closed$"):
        kept.get((1,), len)
