"""How good a classification is, as MedMNIST's evaluator defines it (Yang et al. 2023): AUC and ACC."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def binary_auc(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties half (Mann-Whitney U).

    positive (N,) bool, score (N,). NaN where only one of the two kinds is there.
    """
    positive = np.asarray(positive, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    ranks = rankdata(score)  # ties share their mean rank
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """labels (N,), scores (N, K) probabilities. K = 2: of class 1; else the mean over classes, one against the rest."""
    if scores.shape[1] == 2:
        return binary_auc(labels == 1, scores[:, 1])
    return float(np.mean([binary_auc(labels == k, scores[:, k]) for k in range(scores.shape[1])]))


def accuracy(labels: np.ndarray, scores: np.ndarray) -> float:
    """labels (N,), scores (N, K) probabilities. K = 2: class 1 where its score is above 0.5; else the largest."""
    predicted = (scores[:, 1] > 0.5).astype(int) if scores.shape[1] == 2 else scores.argmax(axis=1)
    return float((predicted == labels).mean())
