"""digit-facts: digits-mini with facts about the digit as labels, or with its value as a number."""

from dataclasses import replace
from typing import Literal

from common.config.task import TaskName
from common.data.shard import Example
from common.datasets.digits_mini import DigitsMini
from common.tasks.labels import Label

FACTS = {
    "even": {0, 2, 4, 6, 8},
    "prime": {2, 3, 5, 7},
    "square": {0, 1, 4, 9},
    "above six": {7, 8, 9},
}
"""By fact, the digits of which it is true."""


class DigitFacts(DigitsMini):
    """digits-mini for multi-label classification or regression."""

    labels: Literal["facts", "value"] = "facts"
    """`facts`: whether the digit is even, prime, a square, above six, for task multi-label. `value`: the digit as a
    number, for task regression."""

    @property
    def task(self) -> TaskName:
        """The task that `labels` are for."""
        return "multi-label" if self.labels == "facts" else "regression"

    @property
    def classes(self) -> list[str]:
        """The facts, or the target "digit"."""
        return list(FACTS) if self.labels == "facts" else ["digit"]

    def examples(self, part: str, seed: int) -> list[Example]:
        """The examples of digits-mini with these labels."""
        return [replace(example, label=self._label(str(example.label))) for example in super().examples(part, seed)]

    def _label(self, digit: str) -> Label:
        if self.labels == "value":
            return (float(digit),)
        return tuple(fact for fact, digits in FACTS.items() if int(digit) in digits)
