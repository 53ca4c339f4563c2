"""Seeded scenarios of missing modalities: unimodal clients, incomplete examples, rates by modality."""

from collections.abc import Mapping, Sequence

import numpy as np

from common.config import Missing
from common.seeding import rng
from common.types import Modality


def unimodal_clients(clients: int, modalities: Sequence[Modality], missing: Missing, seed: int) -> dict[int, Modality]:
    """Which clients hold one modality only, and which.

    The number is the share of the clients, rounded; with one share for all, the modalities take turns.
    """
    wanted = missing.unimodal_clients
    if isinstance(wanted, Mapping):
        single = [m for m in sorted(wanted) for _ in range(round(wanted[m] * clients))]
    else:
        single = [sorted(modalities)[turn % len(modalities)] for turn in range(round(wanted * clients))]
    chosen = rng(seed, "unimodal").permutation(clients)[: len(single)]
    return {int(client): modality for client, modality in zip(chosen, single, strict=False)}


def drop(
    present: Sequence[frozenset[Modality]], missing: Missing, seed: int, purpose: str
) -> list[frozenset[Modality]]:
    """What each example keeps of the modalities it has; nobody loses the last one.

    incomplete: that share of the examples, rounded, loses exactly one modality, each modality equally often.
    rates: each example loses each modality with its probability, independently.
    """
    return _drop_by_rate(_drop_one(present, missing.incomplete, seed, purpose), missing.rates, seed, purpose)


def _drop_one(
    present: Sequence[frozenset[Modality]], share: float, seed: int, purpose: str
) -> list[frozenset[Modality]]:
    kept = list(present)
    order = rng(seed, "incomplete", purpose).permutation(len(kept))
    candidates = [i for i in order if len(kept[i]) > 1][: round(share * len(kept))]
    modalities = sorted(frozenset().union(*present)) if present else []
    for turn, i in enumerate(candidates):
        own = [m for m in modalities if m in kept[i]]
        kept[i] -= {own[turn % len(own)]}
    return kept


def _drop_by_rate(
    present: Sequence[frozenset[Modality]], rates: Mapping[Modality, float], seed: int, purpose: str
) -> list[frozenset[Modality]]:
    kept = list(present)
    for modality in sorted(rates):
        draws = rng(seed, "rates", purpose, modality).random(len(kept))
        for i in np.flatnonzero(draws < rates[modality]):
            if kept[i] != {modality}:
                kept[i] -= {modality}
    return kept
