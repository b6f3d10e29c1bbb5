import pytest

from threedme_ros.nodes.steps import run_all


def test_every_step_is_taken_in_order_and_no_error_is_lost():
    taken = []

    def step(name: str, error: Exception | None = None) -> None:
        taken.append(name)
        if error:
            raise error

    first, last = ValueError("first"), KeyError("last")
    with pytest.raises(KeyError) as raised:
        run_all(lambda: step("a", first), lambda: step("b"), lambda: step("c", last), lambda: step("d"))
    assert taken == ["a", "b", "c", "d"]
    assert raised.value is last
    assert raised.value.__context__ is first
