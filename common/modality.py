"""Modalities and sets of modalities. The import is fast, because all code that reads a config or metadata needs it."""

from collections.abc import Iterable
from itertools import combinations

Modality = str
"""A key such as "audio". Only the modality's encoder interprets the values."""


def subsets(modalities: Iterable[Modality]) -> list[tuple[Modality, ...]]:
    """Every non-empty subset, smallest first. Each subset is in alphabetical order."""
    names = sorted(modalities)
    return [chosen for size in range(1, len(names) + 1) for chosen in combinations(names, size)]


def subset_name(modalities: Iterable[Modality]) -> str:
    """The name of a set of modalities in metrics and reports, e.g. "audio+image"."""
    return "+".join(sorted(modalities))
