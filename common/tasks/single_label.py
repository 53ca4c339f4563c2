"""Single-label classification: one class for each example."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from torch import Tensor

from common.config.task import TaskName
from common.tasks.base import CALIBRATION_BINS, Task
from common.tasks.histogram import SCORE_BINS, histogram
from common.tasks.labels import Label
from common.tasks.observed import Numbers, Observed, Part, Shape, by_bin


class SingleLabelTask(Task):
    """The probability of a class is the softmax of the logits, and the most probable class is predicted."""

    name: ClassVar[TaskName] = "single-label"

    def scores(self, logits: Tensor) -> Tensor:
        """softmax(u)."""
        return logits.double().softmax(1)

    def decide(self, scores: Numbers) -> Label:
        """The most probable class."""
        return self.classes[int(scores.argmax())]

    def observe(self, scores: Numbers, targets: Numbers, exact: bool = False) -> dict[str, Observed]:
        """Parts: answers (wrong, right; sum of Brier scores), confusion (by true and predicted class; sums of the
        probabilities of the true class), scores (histograms), calibration (wrong, right by bin of the highest
        probability; sums of these probabilities)."""
        true, shapes = targets.astype(np.int64), self.shapes()
        rows, classes = np.arange(len(scores)), scores.shape[1]
        positive = true[:, None] == np.arange(classes)
        predicted, highest = scores.argmax(1), scores.max(1, initial=0.0)
        right = (predicted == true).astype(np.int64)
        bins = np.minimum((highest * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        return {
            "answers": Observed(right[:, None], ((scores - positive) ** 2).sum(1)[:, None], shapes["answers"]),
            "confusion": Observed(
                (true * classes + predicted)[:, None],
                np.where(positive, scores[rows, true][:, None], 0.0),
                shapes["confusion"],
            ),
            "scores": histogram(scores, positive, exact),
            "calibration": Observed(
                (right * CALIBRATION_BINS + bins)[:, None],
                by_bin(highest[:, None], bins[:, None], CALIBRATION_BINS),
                shapes["calibration"],
            ),
        }

    def shapes(self) -> dict[str, Shape]:
        """For K classes."""
        k = len(self.classes)
        return {
            "answers": Shape((2,), (1,), 1),
            "confusion": Shape((k, k), (k,), 1),
            "scores": Shape((2, k, SCORE_BINS), (0,), k),
            "calibration": Shape((2, CALIBRATION_BINS), (CALIBRATION_BINS,), 1),
        }

    def bounds(self, name: str, part: Part) -> tuple[Numbers, Numbers]:
        """A Brier score is at most 2, a probability at most 1."""
        if name == "answers":
            return np.zeros(1), np.array([2.0 * part.counts.sum()])
        counted = part.counts.sum(1 if name == "confusion" else 0) if name != "scores" else np.zeros(0)
        return np.zeros_like(part.sums), counted.astype(np.float64)

    def skill(self, parts: Mapping[str, Part]) -> tuple[float, float] | None:
        """The accuracy, and that of guessing."""
        if "answers" not in parts or not (total := parts["answers"].counts.sum()):
            return None
        return float(parts["answers"].counts[1] / total), 1 / len(self.classes)
