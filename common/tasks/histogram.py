"""Histograms of scores, and the ranking figures that are computed from them.

With bins, scores of one bin count as equal. Each figure comes with the largest error that this can cause.
"""

import numpy as np
from numpy.typing import NDArray

from common.tasks.observed import Numbers, Observed, Part, Shape

SCORE_BINS = 100
"""Number of equal bins of probabilities, in histograms of scores. Every multiple of 0.01 is an edge, and belongs to the
bin above it."""
EDGES: Numbers = np.arange(SCORE_BINS) / SCORE_BINS
"""The lower edges of these bins."""


def histogram(scores: Numbers, positive: NDArray[np.bool_], exact: bool) -> Observed:
    """The histograms of scores [N, K] in 0..1, counts [2, K, U]: those of examples without (0) and with (1) the class.

    exact: one bin for each different score of a class, so that nothing is lost; else U = SCORE_BINS equal bins.
    """
    rows, classes = scores.shape
    edges, width = None, SCORE_BINS
    if not exact:
        bins = np.clip(np.searchsorted(EDGES, scores, "right") - 1, 0, SCORE_BINS - 1)
    else:
        found = [np.unique(scores[:, k], return_inverse=True) for k in range(classes)]
        width = max((len(values) for values, _ in found), default=1)
        edges = np.stack([np.pad(values, (0, width - len(values)), constant_values=np.inf) for values, _ in found])
        bins = np.stack([index for _, index in found], axis=1).reshape(rows, classes)
    cells = (positive.astype(np.int64) * classes + np.arange(classes)) * width + bins
    return Observed(cells, np.zeros((rows, 0)), Shape((2, classes, width), (0,), classes), edges)


def areas(part: Part) -> Numbers:
    """AUROC [K] of each class against the rest: the probability that an example of the class has a higher score than
    another example, where equal scores count one half (J. A. Hanley, B. J. McNeil, Radiology 143, 1982). NaN if all
    examples are of the class, or none."""
    negative, positive = part.counts.astype(np.float64)
    below = negative.cumsum(1) - negative
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = (positive * (below + negative / 2)).sum(1) / (positive.sum(1) * negative.sum(1))
    return found


def area_errors(part: Part) -> Numbers:
    """The largest error [K] of `areas`: half the share of pairs whose order is unknown. 0 for exact histograms."""
    negative, positive = part.counts.astype(np.float64)
    if part.edges is not None:
        return np.zeros(len(positive))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = (positive * negative).sum(1) / (2 * positive.sum(1) * negative.sum(1))
    return found


def precisions(part: Part) -> Numbers:
    """Average precision [K] of each class against the rest: sum over thresholds of (R_n - R_{n-1}) P_n, without
    interpolation, as in scikit-learn. NaN without examples of the class."""
    negative, positive = part.counts[:, :, ::-1].astype(np.float64)
    hits, chosen = positive.cumsum(1), (positive + negative).cumsum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(chosen > 0, hits / chosen, 0.0)
        found: Numbers = (positive * precision).sum(1) / positive.sum(1)
    return found


def precision_errors(part: Part) -> Numbers:
    """The largest error [K] of `precisions`: the distance to the best or the worst order within the bins. 0 for exact
    histograms.

    A bin with p positives after H others of the class and n negatives after C others adds, if its positives come first,
    sum_{j=1..p} (H + j) / (H + C + j) = p - C (digamma(H + C + p + 1) - digamma(H + C + 1)).
    """
    from scipy.special import digamma  # scipy loads slowly, and sites need no errors

    negative, positive = part.counts[:, :, ::-1].astype(np.float64)
    if part.edges is not None:
        return np.zeros(len(positive))
    hits, misses = positive.cumsum(1) - positive, negative.cumsum(1) - negative

    def summed(before: Numbers) -> Numbers:
        start = hits + before + 1
        added: Numbers = (positive - before * (digamma(start + positive) - digamma(start))).sum(1)
        return added

    with np.errstate(invalid="ignore", divide="ignore"):
        best, worst = (summed(before) / positive.sum(1) for before in (misses, misses + negative))
    known = precisions(part)
    found: Numbers = np.maximum(best - known, known - worst)
    return found


def above(part: Part, threshold: float) -> Numbers:
    """By class, the examples without (0) and with (1) it whose score is at least the threshold: [2, K]."""
    edges = EDGES if part.edges is None else part.edges
    found: Numbers = np.where(edges >= threshold, part.counts, 0).sum(2).astype(np.float64)
    return found
