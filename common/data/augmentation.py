"""Augments batches in training. The encoders contain the augmentations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import MultimodalModel
from common.seeding import seeded
from common.types import Batch


@dataclass(frozen=True)
class Augmentation:
    """The function that augments the batches of an epoch. Worker processes get a copy.

    encoders: the encoders that augment. purpose: the seed is a function of it, e.g. round, epoch, site.
    """

    encoders: Mapping[Modality, Encoder]
    seed: int
    purpose: tuple[str | int, ...]

    @classmethod
    def of(cls, model: MultimodalModel, examples: Batch, seed: int, *purpose: str | int) -> "Augmentation | None":
        """The augmentation by the model's encoders; None if no encoder augments."""
        encoders = {m: model.encoder(m) for m in examples.modalities if model.encoder(m).augments}
        return cls(encoders, seed, purpose) if encoders else None

    def __call__(self, batch: Batch) -> Batch:
        """The augmented batch."""
        return augmented(batch, self.encoders, self.seed, *self.purpose)


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
