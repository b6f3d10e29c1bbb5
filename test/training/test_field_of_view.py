"""Slabs, cut-off sides and the cylinder of a cone-beam scan."""

import torch

from threedme_ros.training.field_of_view import LEAST_SIDE, cylinder, draw_cylinder, draw_extent, place


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def depths(window, count=200, slab=1.0, cut=0.0):
    return [draw_extent(window, seeded(seed), slab, (6, 40), cut)[0] for seed in range(count)]


def test_slabs_are_as_thin_and_as_thick_as_asked_thin_ones_as_often_as_thick_ones():
    found = depths((16, 64, 64))
    assert min(found) == 6 and max(found) == 16
    found = depths((48, 64, 64))
    assert min(found) >= 12 and max(found) <= 40  # never less than a quarter of the window
    assert 60 < sum(d < 22 for d in found) < 140  # log-uniform: the middle is the geometric one


def test_deep_windows_show_no_slabs_and_none_are_cut_unless_asked():
    assert set(depths((96, 64, 64), 30)) == {96}
    assert draw_extent((32, 64, 48), seeded(), 0.0, (6, 40), 0.0) == (32, 64, 48)


def test_cut_off_sides_keep_half_of_the_window():
    found = [draw_extent((32, 64, 48), seeded(seed), 0.0, (6, 40), 1.0) for seed in range(100)]
    assert min(e[1] for e in found) >= LEAST_SIDE * 64 and min(e[2] for e in found) >= LEAST_SIDE * 48
    assert any(e[1] < 64 for e in found) and any(e[2] < 48 for e in found)


def test_a_box_lies_in_its_window_often_at_its_beginning():
    placed = [place((7, 20, 30), (16, 32, 32), seeded(seed)) for seed in range(100)]
    for box in placed:
        assert [s.stop - s.start for s in box] == [7, 20, 30]
        assert all(s.start >= 0 and s.stop <= n for s, n in zip(box, (16, 32, 32), strict=True))
    assert 30 < sum(all(s.start == 0 for s in box) for box in placed) < 70


def test_the_cylinder_is_round_in_an_oblong_box():
    seen = cylinder((4, 41, 61), 1.0)
    assert seen.any(1).sum() == seen.any(0).sum() == 41
    assert seen[20, 30] and not seen[0, 0] and torch.equal(seen, seen.flip(0, 1))


def test_some_scans_have_one():
    drawn = [draw_cylinder((4, 20, 20), seeded(seed)) is not None for seed in range(100)]
    assert 15 < sum(drawn) < 50
