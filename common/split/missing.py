"""Seeded scenarios of missing modalities: unimodal clients, incomplete examples, rates per modality."""

from collections.abc import Mapping, Sequence

import numpy as np

from common.config.experiment import Missing
from common.modality import Modality
from common.seeding import rng


def unimodal_clients(clients: int, modalities: Sequence[Modality], missing: Missing, seed: int) -> dict[int, Modality]:
    """The clients that hold only one modality, with that modality.

    Their number is the given share of the clients, rounded. With one share for all modalities, the modalities are
    assigned in turn.
    """
    wanted = missing.unimodal_clients
    if isinstance(wanted, Mapping):
        single = [m for m in sorted(wanted) for _ in range(round(wanted[m] * clients))]
    else:
        single = [sorted(modalities)[turn % len(modalities)] for turn in range(round(wanted * clients))]
    chosen = rng(seed, "unimodal").permutation(clients)[: len(single)]
    return {int(client): modality for client, modality in zip(chosen, single, strict=False)}


def drop(
    present: Sequence[frozenset[Modality]], labels: Sequence[str], missing: Missing, seed: int, purpose: str
) -> list[frozenset[Modality]]:
    """The modalities that each example of a client keeps. No example loses its last modality.

    `missing.incomplete`: this share of the examples, rounded, loses exactly one modality, each modality equally often.
    If the share depends on the class or the client, each class or client has its own share, which is a function of the
    seed and the name. `missing.rates`: each example independently loses each modality with the modality's probability.
    """
    kept = list(present)
    for name, members in _groups(labels, missing.depends_on).items():
        share = missing.incomplete
        if missing.depends_on is not None:
            share = own_share(share, seed, name if missing.depends_on == "class" else purpose)
        for i, keep in zip(members, _drop_one([kept[i] for i in members], share, seed, purpose + name), strict=True):
            kept[i] = keep
    return _drop_by_rate(kept, missing.rates, seed, purpose)


def own_share(mean: float, seed: int, name: str) -> float:
    """The share of one class or client, drawn from a beta distribution with this mean. For a mean of 1/2, the
    distribution is uniform."""
    if mean in (0, 1):
        return mean
    return float(rng(seed, "own share", name).beta(2 * mean, 2 * (1 - mean)))


def _groups(labels: Sequence[str], depends_on: str | None) -> dict[str, list[int]]:
    """The groups of examples with the same share: the examples of a class, or all examples of a client."""
    if depends_on != "class":
        return {"": list(range(len(labels)))}
    return {label: [i for i, own in enumerate(labels) if own == label] for label in sorted(set(labels))}


def _drop_one(
    present: Sequence[frozenset[Modality]], share: float, seed: int, purpose: str
) -> list[frozenset[Modality]]:
    kept = list(present)
    order = rng(seed, "incomplete", purpose).permutation(len(kept))
    candidates = [i for i in order if len(kept[i]) > 1][: round(share * len(kept))]
    modalities = sorted(frozenset().union(*present)) if present else []
    first = int(rng(seed, "first", purpose).integers(len(modalities))) if modalities else 0
    for turn, i in enumerate(candidates, start=first):
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
