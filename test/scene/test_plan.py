"""Looks from real labels, and everything decided together: a scene over a made-up time."""

import numpy as np
import pytest

from threedme_ros.anatomy import Role
from threedme_ros.phantom import phantom
from threedme_ros.scene.belief import Belief, Rules
from threedme_ros.scene.keeper import Keeper, Pace
from threedme_ros.scene.look import TARGETS, looked_at, shape_of, targets_in
from threedme_ros.scene.plan import ERROR, OK, WARN, ScenePlan
from threedme_ros.scene.watch import Watch
from threedme_ros.volume import Volume


@pytest.fixture(scope="module")
def labels(anatomy):
    """Two no-go structures, the liver as target, and vertebrae."""
    whole = phantom((44, 36, 36), (6.0, 6.0, 8.0))[1]
    ids = [anatomy[name].id for name in ("kidney_right", "aorta", "liver", "vertebrae")]
    return whole.with_voxels(np.where(np.isin(whole.voxels, ids), whole.voxels, 0).astype(np.uint8))


def seen(labels, anatomy, key="first", alarm=""):
    certain = labels.with_voxels(np.full(labels.shape, 255, np.uint8))
    return looked_at(labels, certain, anatomy, key, alarm)


@pytest.fixture
def plan():
    rules = Rules(stale_after_s=10.0, growth_mm_per_s=0.1, growth_limit_mm=2.0, gone_after=2)
    return ScenePlan(Belief(rules), Keeper(Pace()), Watch("/perception"))


@pytest.fixture
def kept(plan, labels, anatomy):
    """A plan whose scene is as wanted at 0 s."""
    speak(plan, 0.0)
    plan.server(True)
    plan.observe(0.0, *seen(labels, anatomy))
    settle(plan, 0.0)
    return plan


def speak(plan, now_s, well=True, message="active"):
    plan.watch.heard(now_s, well=well, message=message, sources=1)


def settle(plan, now_s):
    """Acknowledge what is sent until nothing is left: (operation, name) of each."""
    sent = []
    while job := plan.next(now_s):
        sent += [(change.operation.value, change.name) for change in job.changes]
        plan.keeper.acknowledged()
    return sent


def test_a_look_has_no_go_and_target_structures_with_their_places(labels, anatomy):
    look, found = seen(labels, anatomy)
    assert set(look.seen) == set(found) == {"kidney_right", "aorta", "liver", "vertebrae"}
    for name, solid in found.items():
        where = labels.grid.to_mm(np.argwhere(labels.voxels == anatomy[name].id))
        np.testing.assert_allclose(look.seen[name].extent.centre_mm, where.mean(0), atol=1e-3)
        assert look.seen[name].extent.volume_ml == pytest.approx(len(where) * labels.grid.voxel_volume_ml)
        assert look.seen[name].confidence == 1.0
        assert solid.structure == anatomy[name]
    assert look.midline_mm == pytest.approx(0.0, abs=1.0)
    assert look.seen["kidney_right"].extent.centre_mm[0] > 40


def test_the_same_shape_elsewhere_is_the_same_shape(labels, anatomy):
    moved = np.array(labels.affine)
    moved[:3, 3] += [3.0, -2.0, 1.0]
    turned = labels.affine @ np.diag([1.01, 1, 1, 1])
    (_, here), (_, there), (_, other) = (
        seen(Volume(labels.voxels, affine), anatomy) for affine in (labels.affine, moved, turned)
    )
    assert shape_of(here["aorta"]) == shape_of(there["aorta"])
    assert len({shape_of(here["aorta"]), shape_of(other["aorta"]), shape_of(here["liver"])}) == 3


def test_targets_hang_inside_a_no_go_structure_and_lie_inside_their_own(plan, labels, anatomy):
    look, found = seen(labels, anatomy)
    plan.observe(0.0, look, found)
    targets = targets_in(plan.belief.wanted(0.0), found)
    assert set(targets.places_mm) == {"liver"}
    assert found["liver"].holds(np.array([targets.places_mm["liver"]]))[0]
    assert found["vertebrae"].holds(np.array([targets.host_mm]))[0]
    assert found["vertebrae"].structure.role is Role.NO_GO
    only_target = {name: want for name, want in plan.belief.wanted(0.0).items() if name == "liver"}
    assert targets_in(only_target, found) is None


def test_nothing_is_sent_without_a_server_and_everything_once_it_is_there(plan, labels, anatomy):
    plan.observe(0.0, *seen(labels, anatomy))
    assert plan.next(0.0) is None
    plan.server(True)
    assert sorted(settle(plan, 0.0)) == sorted(("add", n) for n in ("kidney_right", "aorta", "vertebrae", TARGETS))


def test_a_lost_server_is_an_error_and_gets_everything_again(kept):
    kept.server(False)
    assert kept.condition(0.0).level == ERROR
    kept.server(True)
    assert len(settle(kept, 1.0)) == 4
    assert kept.condition(1.0).level == OK


def test_condition_over_time(kept):
    assert kept.condition(1.0).level == OK
    assert kept.condition(4.0).lines == ("/perception: no diagnostics for 4 s",)
    speak(kept, 11.0)
    settle(kept, 11.0)
    assert kept.condition(11.0).level == WARN
    assert kept.condition(11.0).lines == ("not confirmed for 11 s, growing: all structures",)
    speak(kept, 40.0)
    settle(kept, 40.0)
    assert kept.condition(40.0).level == ERROR
    assert kept.condition(40.0).lines[0] == "grown to the limit of 2 mm: the anatomy is too old"


def test_no_anatomy_is_a_warning(plan):
    plan.server(True)
    speak(plan, 0.0)
    assert plan.condition(0.0).lines == ("no anatomy yet",)


def test_a_scene_that_stays_behind_becomes_an_error(kept):
    kept.keeper.present(set())
    levels = []
    for now_s in range(13):
        speak(kept, float(now_s))
        levels.append(kept.condition(float(now_s)).level)
    assert (levels[0], levels[9], levels[12]) == (WARN, WARN, ERROR)


def test_growth_is_sent_step_by_step_but_targets_do_not_grow(kept):
    sent = [change for tenth in range(500) for change in settle(kept, tenth / 10)]
    assert sent.count(("add", "aorta")) == 4
    assert {name for _, name in sent} == {"aorta", "kidney_right", "vertebrae"}


def test_a_new_registration_is_applied_when_it_is_time_and_the_octomap_cleared_after(kept):
    kept.registration_changed(5.5)
    assert kept.octomap_due and not kept.octomap_clearable(5.0)
    assert settle(kept, 5.4) == []
    job = kept.next(5.5)
    assert {(c.operation.value, c.name) for c in job.changes} == {
        ("move", n) for n in ("kidney_right", "aorta", "vertebrae", TARGETS)
    }
    assert not kept.octomap_clearable(5.5)
    kept.keeper.acknowledged()
    assert kept.octomap_clearable(5.6)
    assert "the octomap is from before the last registration" in kept.condition(5.6).lines


def test_geometry_of_a_kept_structure_outlives_the_look_it_is_from(kept, labels, anatomy):
    for count, key in enumerate("abc", 1):
        kept.observe(float(count), *seen(labels, anatomy, key, alarm="out of scope"))
    kept.keeper.present(set())
    job = kept.next(3.0)
    assert set(job.solids) <= {"kidney_right", "aorta", "vertebrae"}
    assert {want.key for want in kept.belief.wanted(3.0).values()} == {"first"}


def test_a_restarted_node_keeps_what_it_finds_until_good_looks_show_it_gone(plan, labels, anatomy):
    speak(plan, 0.0)
    plan.server(True)
    plan.found_in_scene({"tumour", TARGETS})
    assert plan.next(0.0) is None
    plan.observe(0.0, *seen(labels, anatomy))
    assert ("remove", "tumour") not in settle(plan, 0.0)
    plan.observe(1.0, *seen(labels, anatomy, "second"))
    assert settle(plan, 1.0) == [("remove", "tumour")]


def test_accepting_without_a_volume_is_refused(plan):
    assert not plan.accept(0.0)
