"""The server's probe set: the examples on which the strategy cka compares the clients' models."""

from collections.abc import Mapping

import torch
from torch import Tensor

from common.blocks import set_params
from common.data.batches import batches
from server.own_data.own_shard import OwnShard


class ProbeSet(OwnShard):
    """A probe shard in memory. Its labels are not used."""

    @torch.no_grad()
    def represent(self, params: Mapping[str, Tensor], every: bool = False) -> Tensor:
        """The representations of the probes by a model with these parameters, [P, R], in eval mode. every: also of each
        modality alone."""
        set_params(self.model, params)
        self.model.eval()
        seen = self.model.represent_all if every else self.model.represent
        return torch.cat([seen(batch).cpu() for batch in batches(self.examples, self.batch_size, self.model.device)])
