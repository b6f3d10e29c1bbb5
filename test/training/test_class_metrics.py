import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from threedme_ros.training.class_metrics import accuracy, auc, binary_auc


def scores(classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), rng.integers(0, classes, 40)]
    raw = rng.random((len(labels), classes)).round(1) + 0.01  # ties
    return labels, raw / raw.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [3, 11])
def test_many_classes_as_medmnist_averages_them(classes):
    labels, p = scores(classes, 1)
    expected = np.mean([roc_auc_score(labels == k, p[:, k]) for k in range(classes)])
    assert auc(labels, p) == pytest.approx(expected, abs=1e-12)
    assert accuracy(labels, p) == accuracy_score(labels, p.argmax(axis=1))


def test_two_classes_by_the_positive_score():
    labels, p = scores(2, 2)
    assert auc(labels, p) == pytest.approx(roc_auc_score(labels, p[:, 1]), abs=1e-12)
    assert accuracy(labels, p) == accuracy_score(labels, p[:, 1] > 0.5)


def test_by_hand():
    # positives 0.4, 0.8; negatives 0.1, 0.4: of four pairs three are right and one is a tie
    assert binary_auc(np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8])) == 3.5 / 4


def test_one_kind_only_has_no_auc():
    assert np.isnan(binary_auc(np.ones(3), np.arange(3)))
