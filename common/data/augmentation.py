"""Augments batches in training. The encoders contain the augmentations."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from common.encoders.base import Encoder
from common.modality import Modality
from common.seeding import seeded
from common.types import Batch


def augmented(batch: Batch, encoders: Mapping[Modality, Encoder], seed: int, *purpose: str | int) -> Batch:
    """The batch, on the CPU, with a random variant of every value whose encoder augments.

    The variant depends only on (seed, purpose, modality, key of the example), so neither the other examples nor their
    order have an effect. The global random state does not change.
    """
    chosen = [m for m in batch.modalities if m in encoders and encoders[m].augments]
    changed = {m: _variants(batch, m, encoders[m], seed, *purpose) for m in chosen}
    return replace(batch, inputs={**batch.inputs, **changed}) if changed else batch


def _variants(batch: Batch, modality: Modality, encoder: Encoder, seed: int, *purpose: str | int) -> Tensor:
    """The inputs [B, ...] of a modality. Rows without the modality are not changed."""
    inputs = batch.inputs[modality].clone()
    for row in batch.has(modality).nonzero()[:, 0].tolist():
        with seeded(seed, "augment", *purpose, modality, int(batch.keys[row])):
            inputs[row] = encoder.augment(inputs[row])
    return inputs
