"""What a model is: encoders by modality, and a prediction for any pattern of missing modalities."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.config.component import Component
from common.encoders.base import Encoder
from common.modality import Modality
from common.types import Batch


class MultimodalModel(nn.Module, ABC):
    """A classifier over several modalities.

    Parameters that belong to one modality live in `branches[modality]`, everything else outside of `branches`:
    `common.blocks` reads from that what travels.
    """

    branches: nn.ModuleDict

    @property
    def modalities(self) -> list[Modality]:
        """In alphabetical order, which is the order of the slots in a fusion."""
        return sorted(self.branches)

    def encoder(self, modality: Modality) -> Encoder:
        """The encoder of a modality."""
        encoder = self.branches[modality].get_submodule("encoder")
        assert isinstance(encoder, Encoder)
        return encoder

    def encode(self, batch: Batch, modality: Modality) -> Tensor:
        """Features [B, D], zeros in the rows without the modality.

        Only rows that have it pass through the encoder, so that a blank can influence nothing: neither the prediction
        nor batch statistics.
        """
        encoder = self.encoder(modality)
        present = batch.has(modality)
        if modality not in batch.inputs or not present.any():
            return torch.zeros(len(batch), encoder.width)
        features: Tensor = encoder(batch.inputs[modality][present])
        return features.new_zeros(len(batch), encoder.width).index_put((present.nonzero()[:, 0],), features)

    def represent(self, batch: Batch) -> Tensor:
        """What the model makes of the examples before it classifies them, [B, R]: by default the encoders' features
        side by side."""
        return torch.cat([self.encode(batch, m) for m in self.modalities], dim=1)

    def represent_all(self, batch: Batch) -> Tensor:
        """What the model makes of the examples with every modality's own vector beside it, [B, R']: by default there is
        nothing besides."""
        return self.represent(batch)

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """Logits [B, K] for any pattern of missing modalities."""

    def forward(self, batch: Batch) -> Tensor:
        """The same as `predict`."""
        return self.predict(batch)


class ModelOptions(Component):
    """Base of the models' options."""

    @abstractmethod
    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> MultimodalModel:
        """A new model with random weights."""
