"""The rule that selects the best model of a run: METRIC[@SUBSET] on validation|test, e.g. "accuracy@audio on test"."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from common.config.component import unknown
from common.modality import Modality, subset_name

On = Literal["validation", "test"]
METRICS = {"accuracy": True, "macro_f1": True, "confidence": True}
"""The metrics that can select a model, and whether a higher value is better."""
FORM = re.compile(r"\s*(?P<metric>\w+)(?:@(?P<subset>\w+(?:\+\w+)*))?\s+on\s+(?P<on>validation|test)\s*")


@dataclass(frozen=True)
class Selection:
    """The best model is the one with the best `metric` on a subset of modalities, measured on `on`."""

    metric: str
    subset: str
    on: On

    def __str__(self) -> str:
        return f"{self.metric}@{self.subset} on {self.on}"

    def value(self, figures: Mapping[str, Mapping[str, Any]]) -> float | None:
        """The value in figures by subset; None if it was not measured."""
        value = figures.get(self.subset, {}).get(self.metric)
        return None if value is None else float(value)

    def improves(self, value: float, best: float | None) -> bool:
        """Whether a value is better than the best one so far. An equal value is not."""
        if best is None:
            return True
        return value > best if METRICS[self.metric] else value < best


def selection_of(text: str, modalities: Sequence[Modality]) -> Selection:
    """The rule of a text without mistakes. Its default subset is all modalities."""
    found = FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} has mistakes")
    named = found["subset"].split("+") if found["subset"] else modalities
    return Selection(found["metric"], subset_name(set(named)), "test" if found["on"] == "test" else "validation")


def selection_mistakes(text: str, modalities: Sequence[Modality]) -> Iterator[str]:
    """Every mistake of a text."""
    found = FORM.fullmatch(text)
    if found is None:
        yield f"METRIC[@SUBSET] on validation|test is needed, e.g. {example(modalities)!r}, not {text!r}"
        return
    if found["metric"] not in METRICS:
        yield unknown("metric", found["metric"], list(METRICS))
    for modality in (found["subset"] or "").split("+"):
        if modality and modality not in modalities:
            yield unknown("modality", modality, list(modalities))


def example(modalities: Sequence[Modality]) -> str:
    """A text without mistakes."""
    return f"macro_f1@{subset_name(modalities)} on validation"
