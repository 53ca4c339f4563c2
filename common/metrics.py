"""Counts of predictions, which are merged by addition, and the figures that are computed from them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import FiniteFloat, NonNegativeInt
from torch import Tensor

from common.data.batches import batches
from common.errors import TrainingError
from common.modality import subset_name, subsets
from common.models.base import MultimodalModel
from common.types import Batch


@dataclass(frozen=True)
class Tally:
    """Counts of the predictions for a number of examples. Every list is [K], with one entry per class.

    correct: correct predictions. total: examples of the class. predicted: examples for which the class was predicted.
    confidence: sum of the probabilities of the true class, by true class.
    """

    correct: list[NonNegativeInt]
    total: list[NonNegativeInt]
    predicted: list[NonNegativeInt]
    confidence: list[FiniteFloat]

    @property
    def accuracy(self) -> float:
        """The correct predictions of all classes divided by the number of examples; 0 without examples."""
        return sum(self.correct) / self.examples if self.examples else 0.0

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor) -> "Tally":
        """The counts for logits [B, K] and labels [B]."""
        classes = logits.shape[1]
        answer = logits.argmax(1)
        given = logits.double().softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
        return cls(
            torch.bincount(labels[answer == labels], minlength=classes).tolist(),
            torch.bincount(labels, minlength=classes).tolist(),
            torch.bincount(answer, minlength=classes).tolist(),
            torch.zeros(classes, dtype=torch.float64).index_add(0, labels, given).tolist(),
        )

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*([a + b for a, b in zip(x, y, strict=True)] for x, y in zip(self, other, strict=True)))

    def __iter__(self) -> Iterator[list[Any]]:
        return iter((self.correct, self.total, self.predicted, self.confidence))

    @property
    def examples(self) -> int:
        """The number of examples."""
        return sum(self.total)

    def figures(self) -> dict[str, Any]:
        """The figures accuracy, macro_f1 (over the classes that occur or are predicted), confidence (mean probability
        of the true class), per_class (recall; None for a class without examples) and examples."""
        by_class = zip(self.correct, self.total, self.predicted, strict=True)
        f1 = [2 * hits / (total + said) for hits, total, said in by_class if total + said]
        return {
            "accuracy": sum(self.correct) / self.examples,
            "macro_f1": sum(f1) / len(f1),
            "confidence": sum(self.confidence) / self.examples,
            "per_class": [hit / n if n else None for hit, n in zip(self.correct, self.total, strict=True)],
            "examples": self.examples,
        }


Tallies = dict[str, Tally]
"""The tallies by subset of modalities, e.g. "audio+image"."""


def figures(tallies: Mapping[str, Tally]) -> dict[str, dict[str, Any]]:
    """The figures of every subset that has examples."""
    return {name: tally.figures() for name, tally in tallies.items() if tally.examples}


def merge(into: Tallies, more: Mapping[str, Tally]) -> Tallies:
    """The sums of tallies, by subset."""
    merged = dict(into)
    for name, tally in more.items():
        merged[name] = merged[name] + tally if name in merged else tally
    return merged


@torch.no_grad()
def evaluate(model: MultimodalModel, examples: Batch, batch_size: int) -> Tallies:
    """Predict with every non-empty subset of the modalities, using the examples that have all modalities of the subset.

    The model is in eval mode afterwards.

    Raises TrainingError when a prediction is not finite.
    """
    model.eval()
    tallies: Tallies = {}
    for subset in subsets(set(model.modalities) & set(examples.modalities)):
        complete = torch.stack([examples.has(m) for m in subset]).all(0)
        for batch in batches(examples.rows(complete), batch_size, model.device):
            logits = model.predict(batch.only(subset)).cpu()
            if not logits.isfinite().all():
                raise TrainingError("training diverged: predictions are not finite; a lower train.lr may help")
            tally = Tally.of(logits, batch.labels.cpu())
            tallies = merge(tallies, {subset_name(subset): tally})
    return tallies
