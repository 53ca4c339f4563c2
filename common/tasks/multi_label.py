"""Multi-label classification: any number of labels for each example."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from common.config.task import MultiLabel, TaskName
from common.tasks.base import CALIBRATION_BINS, Task
from common.tasks.histogram import SCORE_BINS, areas, histogram
from common.tasks.labels import Label
from common.tasks.observed import Numbers, Observed, Part, Shape, by_bin


class MultiLabelTask(Task):
    """The probability of a label is the sigmoid of its logit. A label is predicted at or above its threshold."""

    name: ClassVar[TaskName] = "multi-label"

    def __init__(self, classes: Sequence[str], options: MultiLabel) -> None:
        super().__init__(classes)
        self.thresholds = np.array([options.thresholds.get(name, options.threshold) for name in classes])

    def scores(self, logits: Tensor) -> Tensor:
        """sigmoid(u)."""
        return logits.double().sigmoid()

    def decide(self, scores: Numbers) -> Label:
        """The labels whose probability reaches their threshold."""
        return tuple(name for name, yes in zip(self.classes, scores >= self.thresholds, strict=True) if yes)

    def observe(self, scores: Numbers, targets: Numbers, exact: bool = False) -> dict[str, Observed]:
        """Parts: answers (some label wrong, all right; sum of Brier scores, each the mean over the labels), confusion
        (by label, truth and decision; sums of the probabilities of the truth), scores (histograms), calibration (labels
        absent, present by bin of their probability; sums of these probabilities)."""
        positive, shapes, labels = targets > 0.5, self.shapes(), scores.shape[1]
        decided = scores >= self.thresholds
        truth = np.where(positive, scores, 1 - scores)
        bins = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        right = (decided == positive).all(1).astype(np.int64)
        error = ((scores - positive) ** 2).mean(1)
        return {
            "answers": Observed(right[:, None], error[:, None], shapes["answers"]),
            "confusion": Observed(np.arange(labels) * 4 + positive * 2 + decided, truth, shapes["confusion"]),
            "scores": histogram(scores, positive, exact),
            "calibration": Observed(
                positive * CALIBRATION_BINS + bins, by_bin(scores, bins, CALIBRATION_BINS), shapes["calibration"]
            ),
        }

    def shapes(self) -> dict[str, Shape]:
        """For K labels."""
        k = len(self.classes)
        return {
            "answers": Shape((2,), (1,), 1),
            "confusion": Shape((k, 2, 2), (k,), k),
            "scores": Shape((2, k, SCORE_BINS), (0,), k),
            "calibration": Shape((2, CALIBRATION_BINS), (CALIBRATION_BINS,), k),
        }

    def bounds(self, name: str, part: Part) -> tuple[Numbers, Numbers]:
        """A Brier score is at most 1, and so is a probability."""
        axes: dict[str, tuple[int, ...]] = {"answers": (0,), "confusion": (1, 2), "calibration": (0,)}
        most = part.counts.sum(axes[name]) if name != "scores" else np.zeros(0)
        return np.zeros_like(part.sums), np.atleast_1d(most).astype(np.float64)

    def skill(self, parts: Mapping[str, Part]) -> tuple[float, float] | None:
        """2 AUROC - 1, with the mean AUROC of the labels that occur and do not always occur."""
        if "scores" not in parts or np.isnan(values := areas(parts["scores"])).all():
            return None
        return float(2 * np.nanmean(values) - 1), 0.0
