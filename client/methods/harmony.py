"""Harmony: federated learning of each modality first, then of their fusion.

X. Ouyang et al., "Harmony: Heterogeneous Multi-Modal Federated Learning through Disentangled Model Training", MobiSys
2023, https://doi.org/10.1145/3581791.3596844. Details are those of the authors' public code.

Differences from the paper:

- The second stage has one fusion layer for all clients. The paper clusters the clients by the bias of their encoders
  and averages the fusion layers within a cluster, so that every client has a model of its own.
- The second stage averages the encoders that it fine-tunes. In the paper they stay at the clients.
- Encoders and fusion layer have the same learning rate, and its schedule continues in the second stage. The authors'
  code has a tenth of the rate for the encoders, and a new schedule. Under a decaying schedule the fusion is trained too
  little.
- All clients take part in the second stage, and missing slots have zeros. In the paper only clients with several
  modalities take part.
- Clients with several modalities train all of them in each round. The paper chooses them by the clients' speed.

The paper serves a client with one modality with the model of that modality from the first stage. Here a row that lacks
a modality is predicted by the classifiers of those that it has (`common.models.unimodal_heads`), which the second stage
does not train. During the first stage, the prediction of complete rows is that of an untrained layer.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.losses import unimodal_loss
from common.config.task import TaskName
from common.models.unimodal_heads import UnimodalHeadsModel
from common.types import Batch


class Harmony(Method[UnimodalHeadsModel, Round]):
    """Cross entropy of each modality's own prediction in the first rounds, of the fused prediction in the others."""

    model: ClassVar[str] = "unimodal-heads"
    strategy: ClassVar[str] = "fedcmi"  # the model of a modality is the mean over the clients that hold it
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label", "regression"})

    unimodal_share: float = Field(0.8, gt=0, lt=1)
    """Share of the experiment's rounds in the first stage. In the authors' code 20 of 25 rounds."""

    def begin_round(self, model: UnimodalHeadsModel, examples: Batch, now: Round) -> Round:
        """The round."""
        return now

    def loss(self, model: UnimodalHeadsModel, batch: Batch, context: Round) -> Mapping[str, Tensor]:
        """First stage: sum_m CE(C_m(z_m), y) over the rows that have m. Second stage: CE(F(concat_m z_m), y)."""
        features = model.features(batch)
        fused = model.fuse(features)
        if context.number > self.unimodal_share * context.rounds:
            return {"fused": context.criterion(fused, batch.labels)}
        heads = {m: model.classify(m, features[m]) for m in model.modalities if batch.holds(m)}
        return {
            "unimodal": unimodal_loss(heads, batch, context.criterion),
            "fused": context.criterion(fused.detach(), batch.labels),
        }
