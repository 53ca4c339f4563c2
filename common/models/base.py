"""The interface of models: one encoder per modality, and a prediction for any pattern of missing modalities."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.config.component import Component
from common.config.task import TaskName
from common.encoders.base import Encoder
from common.modality import Modality
from common.types import Batch


class MultimodalModel(nn.Module, ABC):
    """A classifier over several modalities.

    Parameters that belong to one modality must be in `branches[modality]`, all other parameters outside `branches`,
    because `common.blocks` determines from the names which parameters are sent.

    task: the task of the logits, which `common.build` sets. Few models need it.
    """

    branches: nn.ModuleDict
    task: TaskName = "single-label"

    @property
    def modalities(self) -> list[Modality]:
        """The modalities in alphabetical order, which is also their order in a fusion."""
        return sorted(self.branches)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    def encoder(self, modality: Modality) -> Encoder:
        """The encoder of a modality."""
        encoder = self.branches[modality].get_submodule("encoder")
        assert isinstance(encoder, Encoder)
        return encoder

    def encode(self, batch: Batch, modality: Modality) -> Tensor:
        """Features [B, D] of a modality, with zeros in rows without the modality.

        Only rows with the modality pass through the encoder, so a blank value influences neither the prediction nor
        batch statistics.
        """
        encoder = self.encoder(modality)
        if not batch.holds(modality):
            return torch.zeros(len(batch), encoder.width, device=self.device)
        present = batch.index(modality)
        features: Tensor = encoder(batch.inputs[modality][present])
        return features.new_zeros(len(batch), encoder.width).index_put((present,), features)

    def represent(self, batch: Batch) -> Tensor:
        """The representation [B, R] of the examples before classification. By default, the concatenated features of the
        encoders."""
        return torch.cat([self.encode(batch, m) for m in self.modalities], dim=1)

    def represent_all(self, batch: Batch) -> Tensor:
        """The representation [B, R'] of the examples, concatenated with the vector of every modality. By default, there
        are no such vectors."""
        return self.represent(batch)

    def refresh(self) -> None:
        """Compute values that follow from the parameters and are not sent. Called when parameters have been set. By
        default, there are no such values."""

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """Logits [B, K] for any pattern of missing modalities."""

    def forward(self, batch: Batch) -> Tensor:
        """The same as `predict`."""
        return self.predict(batch)


class ModelOptions(Component):
    """The base class of the models' options."""

    @abstractmethod
    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> MultimodalModel:
        """A new model with random weights."""
