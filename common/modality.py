"""Modalities and sets of them. Light to import: whatever reads a config or a shard's metadata needs these names."""

from collections.abc import Iterable
from itertools import combinations

Modality = str
"""A key such as "audio". What it means is the business of its encoder."""


def subsets(modalities: Iterable[Modality]) -> list[tuple[Modality, ...]]:
    """Every non-empty subset, smallest first, each in alphabetical order."""
    names = sorted(modalities)
    return [chosen for size in range(1, len(names) + 1) for chosen in combinations(names, size)]


def subset_name(modalities: Iterable[Modality]) -> str:
    """The name of a set of modalities in metrics and reports, e.g. "audio+image"."""
    return "+".join(sorted(modalities))
