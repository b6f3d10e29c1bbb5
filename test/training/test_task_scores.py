import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

from threedme_ros.training.losses import region_dice
from threedme_ros.training.task_scores import score_targets, shown_mean, summarise

SPACING = (0.7, 1.5, 3.0)
TARGETS = {"ET": (4,), "TC": (1, 4), "WT": (1, 2, 4)}


def blobs(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros((22, 18, 12), np.uint8)
    for value, margin in ((2, 2), (1, 4), (4, 5)):
        a, b, c = rng.integers(0, 2, 3)
        labels[margin + a : 20 - margin, margin + b : 16 - margin, margin // 2 + c : 11 - margin // 2] = value
    return labels


@pytest.mark.parametrize("seed", [1, 2])
def test_regions_score_as_monai_scores_them(seed):
    predicted, truth = blobs(seed), blobs(seed + 10)
    scores = score_targets(predicted, truth, TARGETS, SPACING, 2.0)
    for name, ids in TARGETS.items():
        masks = [torch.from_numpy(np.isin(v, ids))[None, None].float() for v in (predicted, truth)]
        hd = compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=list(SPACING))
        nsd = compute_surface_dice(*masks, [2.0], include_background=True, spacing=list(SPACING))
        assert scores[name].dice == pytest.approx(compute_dice(*masks).item(), abs=1e-6)
        assert scores[name].hd95_mm == pytest.approx(hd.item(), abs=1e-4)
        assert scores[name].nsd == pytest.approx(nsd.item(), abs=1e-6)
        assert scores[name].truth_ml == pytest.approx(np.isin(truth, ids).sum() * 0.7 * 1.5 * 3 / 1000)


def test_missed_targets_and_false_alarms_are_counted_apart():
    truth, nothing = blobs(1), np.zeros_like(blobs(1))
    cases = {
        "missed": score_targets(nothing, truth, {"a": (2,)}, SPACING, 1.0),
        "perfect": score_targets(truth, truth, {"a": (2,)}, SPACING, 1.0),
        "alarm": score_targets(truth, nothing, {"a": (2,)}, SPACING, 1.0),
        "empty": score_targets(nothing, nothing, {"a": (2,)}, SPACING, 1.0),
    }
    summary = summarise(cases)["a"]
    assert (summary["cases"], summary["missed"], summary["false_alarms"]) == (2, 1, 1)
    assert (summary["dice"], summary["nsd"], summary["hd95_mm"]) == (0.5, 0.5, 0.0)
    assert shown_mean(cases["missed"]) == 0
    assert math.isnan(shown_mean(cases["empty"]))


def test_region_dice_by_hand():
    # four voxels, classes 0, 1, 2; certain of 1, 2, 0, 0 where the truth is 1, 1, 2, 0
    logits = torch.full((1, 3, 4), -50.0)
    for voxel, label in enumerate((1, 2, 0, 0)):
        logits[0, label, voxel] = 50.0
    target = torch.tensor([[1, 1, 2, 0]], dtype=torch.uint8)
    # {1, 2}: 2 of 2 found, 3 true: Dice 4/5. {2}: found 1, true 1, none shared: 0
    expected = ((1 - 4 / 5) + 1) / 2
    assert region_dice(logits, target, [(1, 2), (2,)]).item() == pytest.approx(expected, abs=1e-4)
    assert region_dice(logits, torch.zeros_like(target), [(1,)]).item() == 0
