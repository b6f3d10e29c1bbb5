"""The keeper against a scene that refuses, is silent, restarts, or is changed by others."""

from dataclasses import replace

import pytest

from threedme_ros.scene.belief import Wanted
from threedme_ros.scene.keeper import Keeper, Operation, Pace

AORTA = Wanted("first", "patient", 1, (0.0, 0.0, 0.0), 0.0)
LIVER = Wanted("first", "patient", 2, (50.0, 0.0, 0.0), 0.0)
WANTED = {"aorta": AORTA, "liver": LIVER}


@pytest.fixture
def keeper():
    """Nothing sent yet."""
    return Keeper(Pace(timeout_s=5.0, first_s=0.5, longest_s=4.0))


def step(keeper, now_s, wanted=WANTED, released=()):
    """What is sent at ``now_s``, as (operation, names)."""
    changes = keeper.next(now_s, wanted, released)
    if changes:
        keeper.sent(now_s)
    return [(change.operation.value, change.name) for change in changes]


def settle(keeper, now_s=0.0, wanted=WANTED, released=()):
    """Acknowledge until nothing is left; everything that was sent."""
    sent = []
    while part := step(keeper, now_s, wanted, released):
        sent.append(part)
        keeper.acknowledged()
    return sent


def test_each_structure_is_added_by_its_own_request_and_only_once(keeper):
    assert settle(keeper) == [[("add", "aorta")], [("add", "liver")]]
    assert keeper.held == {"aorta", "liver"}
    assert step(keeper, 1.0) == []


def test_one_request_at_a_time(keeper):
    assert step(keeper, 0.0) == [("add", "aorta")]
    assert step(keeper, 4.9) == []


def test_another_shape_or_growth_or_frame_is_added_again(keeper):
    settle(keeper)
    for changed in (replace(AORTA, shape=9), replace(AORTA, extra_mm=0.5), replace(AORTA, frame_id="other")):
        assert settle(keeper, 1.0, {"aorta": changed, "liver": LIVER}) == [[("add", "aorta")]]


def test_another_look_at_the_same_shape_sends_nothing(keeper):
    settle(keeper)
    assert step(keeper, 1.0, {"aorta": replace(AORTA, key="second"), "liver": LIVER}) == []


def test_the_same_shape_elsewhere_is_moved(keeper):
    settle(keeper)
    assert step(keeper, 1.0, {"aorta": replace(AORTA, centre_mm=(1.0, 0.0, 0.0)), "liver": LIVER}) == [
        ("move", "aorta")
    ]


def test_a_new_registration_moves_everything_in_one_request(keeper):
    settle(keeper)
    keeper.registration_changed()
    assert settle(keeper, 1.0) == [[("move", "aorta"), ("move", "liver")]]
    assert settle(keeper, 2.0) == []


def test_a_registration_that_changes_on_the_way_is_applied_after(keeper):
    settle(keeper)
    keeper.registration_changed()
    assert step(keeper, 1.0)
    keeper.registration_changed()
    keeper.acknowledged()
    assert step(keeper, 1.0) == [("move", "aorta"), ("move", "liver")]


def test_only_what_is_released_is_removed(keeper):
    settle(keeper)
    assert step(keeper, 1.0, {"liver": LIVER}) == []
    assert settle(keeper, 1.0, {"liver": LIVER}, {"aorta"}) == [[("remove", "aorta")]]
    assert keeper.held == {"liver"}


def test_obstacles_come_before_free_space(keeper):
    settle(keeper)
    wanted = {"liver": replace(LIVER, shape=8)}
    assert settle(keeper, 1.0, wanted, {"aorta"}) == [[("add", "liver")], [("remove", "aorta")]]


def test_one_that_grows_on_and_on_holds_up_no_other(keeper):
    names, sent = ("aorta", "colon", "liver", "spleen"), []
    for count in range(8):
        grown = {name: replace(AORTA, extra_mm=0.5 * count) for name in names}
        sent += step(keeper, float(count), grown)
        keeper.acknowledged()
    assert [name for _, name in sent] == [*names, *names]


def test_a_refused_object_waits_longer_each_time_and_holds_up_no_other(keeper):
    assert step(keeper, 0.0) == [("add", "aorta")]
    keeper.refused(0.0)
    assert step(keeper, 0.0) == [("add", "liver")]
    keeper.acknowledged()
    tries = []
    for tenth in range(200):
        if step(keeper, tenth / 10):
            tries.append(tenth / 10)
            keeper.refused(tenth / 10)
    assert tries == [0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5]
    assert keeper.last_error == "the planning scene refused to add aorta"
    assert keeper.counts["refused"] == 8


def test_a_refused_move_is_added_again_at_once(keeper):
    settle(keeper)
    keeper.registration_changed()
    assert step(keeper, 1.0)
    keeper.refused(1.0)
    assert settle(keeper, 1.0) == [[("add", "aorta")], [("add", "liver")]]


def test_a_refused_removal_means_that_there_is_nothing_to_remove(keeper):
    settle(keeper)
    assert step(keeper, 1.0, {"liver": LIVER}, {"aorta"}) == [("remove", "aorta")]
    keeper.refused(1.0)
    assert settle(keeper, 1.0, {"liver": LIVER}, {"aorta"}) == []


def test_a_silent_server_is_asked_again_with_growing_pauses(keeper):
    tries = [at_s for at_s in range(60) if step(keeper, float(at_s))]
    assert tries == [0, 6, 12, 19, 28, 37, 46, 55]
    assert keeper.counts["timeouts"] == 7
    keeper.acknowledged()
    assert step(keeper, 60.0) == [("add", "liver")]


def test_time_runs_from_when_the_request_was_sent(keeper):
    assert keeper.next(0.0, WANTED)  # its meshes take long
    assert step(keeper, 60.0) == []
    keeper.sent(60.0)
    assert step(keeper, 64.0) == []
    assert keeper.counts["timeouts"] == 0


def test_what_could_not_be_built_is_tried_again_later(keeper):
    assert keeper.next(0.0, {"aorta": AORTA})
    keeper.failed(0.0, "aorta: no mesh")
    assert step(keeper, 0.4, {"aorta": AORTA}) == []
    assert step(keeper, 0.5, {"aorta": AORTA}) == [("add", "aorta")]


def test_after_a_restart_of_the_server_everything_is_added_again(keeper):
    settle(keeper)
    keeper.server_lost()
    assert keeper.held == frozenset()
    assert settle(keeper, 1.0) == [[("add", "aorta")], [("add", "liver")]]


def test_what_somebody_removed_is_added_again(keeper):
    settle(keeper)
    keeper.present(["liver"])
    assert settle(keeper, 1.0) == [[("add", "aorta")]]
    assert keeper.counts["lost"] == 1


def test_what_a_time_out_may_have_left_is_removed_when_released(keeper):
    step(keeper, 0.0, {"aorta": AORTA})
    assert step(keeper, 5.0, {"aorta": AORTA}) == []  # given up: it may be there or not
    assert step(keeper, 6.0, {}, {"aorta"}) == [("remove", "aorta")]


def test_what_an_earlier_run_left_is_removed_only_when_released(keeper):
    keeper.present(["tumour"])
    assert step(keeper, 0.0, {}) == []
    assert step(keeper, 0.0, {}, {"tumour"}) == [("remove", "tumour")]
    keeper.acknowledged()
    assert step(keeper, 0.0, {}, {"tumour"}) == []


def test_counts_name_every_operation(keeper):
    assert set(keeper.counts) == {*(o.value for o in Operation), "refused", "timeouts", "lost"}
