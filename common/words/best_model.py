"""Describes the best model of a run, from the entry `best` of summary.json or of the model's file."""

from collections.abc import Mapping
from typing import Any

from common.words.figures import title, value

CHOSE_ITSELF = "The test figures of this model are optimistic, because the test examples chose it."


def best_in_words(best: Mapping[str, Any]) -> str:
    """A phrase such as "the best model, of round 3: accuracy of audio+image on validation is 81.2%"."""
    measured = f"{title(best['metric'])} of {best['subset']} on {best['on']} is {value(best['metric'], best['value'])}"
    return f"the best model, of round {best['round']}: {measured}"


def warning_about(best: Mapping[str, Any]) -> str:
    """The reason why the figures of the model are optimistic, or ""."""
    return CHOSE_ITSELF if best["on"] == "test" else ""
