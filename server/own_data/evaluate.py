"""Evaluation of the global model on the server's own test shard."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from common.blocks import set_params
from common.evaluation.bootstrap import intervals
from common.evaluation.evaluate import Tallies, evaluate, predictions
from common.evaluation.figures import Named
from common.tasks.base import Task
from server.own_data.own_shard import OwnShard


class TestSet(OwnShard):
    """The test shard in memory."""

    __test__ = False  # keeps pytest from collecting it

    def evaluate(self, params: Mapping[str, Tensor], task: Task) -> Tallies:
        """The tally of every subset of modalities, with exact histograms of scores."""
        set_params(self.model, params)
        return evaluate(self.model, self.examples, self.batch_size, task, exact=True)

    def intervals(
        self, params: Mapping[str, Tensor], task: Task, metrics: Sequence[Named], seed: int
    ) -> dict[str, dict[str, list[float]]]:
        """By subset and metric, the 95 % bootstrap interval over the test examples."""
        set_params(self.model, params)
        scored = predictions(self.model, self.examples, self.batch_size, task)
        return {one.subset: intervals(one, task, metrics, seed) for one in scored}
