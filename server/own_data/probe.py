"""The server's probe set: the examples on which the strategy cka compares the clients' models."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from common.blocks import set_params
from common.data.batches import batches
from server.own_data.own_shard import OwnShard

Representation = Literal["joint", "all", "logits"]


class ProbeSet(OwnShard):
    """A probe shard in memory. Its labels are not used."""

    @torch.no_grad()
    def represent(self, params: Mapping[str, Tensor], kind: Representation = "joint") -> Tensor:
        """The representations of the probes by a model with these parameters, [P, R], in eval mode. kind: `joint` for
        `represent` of the model, `all` for `represent_all`, `logits` for `predict`."""
        set_params(self.model, params)
        self.model.eval()
        seen = {"joint": self.model.represent, "all": self.model.represent_all, "logits": self.model.predict}[kind]
        return torch.cat([seen(batch).cpu() for batch in batches(self.examples, self.batch_size, self.model.device)])
