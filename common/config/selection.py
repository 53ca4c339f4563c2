"""The rule that selects the best model of a run: METRIC[@SUBSET] on validation|test, e.g. "accuracy@audio on test"."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from common.config.component import unknown
from common.modality import Modality, subset_name

On = Literal["validation", "test"]
FORM = re.compile(r"\s*(?P<metric>[\w.]+)(?:@(?P<subset>\w+(?:\+\w+)*))?\s+on\s+(?P<on>validation|test)\s*")


@dataclass(frozen=True)
class Selection:
    """The best model is the one with the best `metric` on a subset of modalities, measured on `on`."""

    metric: str
    subset: str
    on: On

    def __str__(self) -> str:
        return f"{self.metric}@{self.subset} on {self.on}"


def selection_of(text: str, modalities: Sequence[Modality]) -> Selection:
    """The rule of a text without mistakes. Its default subset is all modalities."""
    found = FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} has mistakes")
    named = found["subset"].split("+") if found["subset"] else modalities
    return Selection(found["metric"], subset_name(set(named)), "test" if found["on"] == "test" else "validation")


def selection_mistakes(text: str, modalities: Sequence[Modality]) -> Iterator[str]:
    """Every mistake of a text, except an unknown metric, because clients do not know the metrics of plugins."""
    found = FORM.fullmatch(text)
    if found is None:
        yield f"METRIC[@SUBSET] on validation|test is needed, e.g. {example(modalities)!r}, not {text!r}"
        return
    for modality in (found["subset"] or "").split("+"):
        if modality and modality not in modalities:
            yield unknown("modality", modality, list(modalities))


def metric_of(text: str) -> str | None:
    """The key of the metric that a text names; None for a text with mistakes."""
    found = FORM.fullmatch(text)
    return found["metric"] if found else None


def example(modalities: Sequence[Modality]) -> str:
    """A text without mistakes."""
    return f"macro_f1@{subset_name(modalities)} on validation"
