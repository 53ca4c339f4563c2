"""Evaluation of the global model on the server's own test shard."""

from collections.abc import Mapping

from torch import Tensor

from common.blocks import set_params
from common.metrics import Tallies, evaluate
from server.own_data.own_shard import OwnShard


class TestSet(OwnShard):
    """The test shard in memory."""

    __test__ = False  # keeps pytest from collecting it

    def evaluate(self, params: Mapping[str, Tensor]) -> Tallies:
        """Counts for every subset of modalities."""
        set_params(self.model, params)
        return evaluate(self.model, self.examples, self.batch_size)
