"""The best model of a run so far, and the early end of a run that no longer improves.

Early stopping: L. Prechelt, "Early Stopping - But When?", in "Neural Networks: Tricks of the Trade", 1998, criterion UP
with whole rounds as strips.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.blocks import Params
from common.config.experiment import Experiment
from common.config.selection import Selection
from common.errors import RunError
from common.evaluation.evaluate import Tallies
from common.evaluation.figures import Named
from common.types import Site
from server.rounds.progress import Kept

log = logging.getLogger(__name__)
TEST = "test"


@dataclass
class BestModel:
    """The best model so far by `federation.keep.best`. Without this option, there is none.

    A model is a candidate once. `test` figures belong to the model that a round made. `validation` figures belong to
    the model that the clients received, which the round before made. A model that was undone is not a candidate. If
    two models have the same value, the earlier one is the best.

    params: the model; empty if there is none. round: the round that made it. stale: the number of measured rounds since
    then. returned: whether the last round was undone, so that clients receive a model again. metric: the metric of the
    selection.
    """

    selection: Selection | None
    patience: int | None = None
    params: Params = field(default_factory=dict)
    round: int = 0
    value: float | None = None
    stale: int = 0
    returned: bool = False
    metric: Named | None = None

    @classmethod
    def of(cls, experiment: Experiment, metrics: Sequence[Named]) -> "BestModel":
        """Before the first round of an experiment. metrics: its metrics."""
        selection = experiment.selection
        chosen = {one.key: one for one in metrics}[selection.metric] if selection else None
        return cls(selection, experiment.federation.patience, metric=chosen)

    def see(self, number: int, received: Params, kept: Kept, validation: Tallies) -> None:
        """Compare the model that a round measured with the best one. received: the model that the clients received.
        validation: the clients' counts for it."""
        if self.selection is None:
            return
        tested = self.selection.on == TEST
        candidate = not kept.why and (tested or not self.returned)
        self.returned = bool(kept.why)
        measured = (kept.test if tested else validation).get(self.selection.subset)
        value = self.metric.of(measured) if self.metric and measured else None
        if value is None:
            return
        self.stale += 1
        if candidate and self._improves(value):
            self.params, self.round = (kept.params, number) if tested else (received, number - 1)
            self.value, self.stale = value, 0

    def check(self, number: int, sites: Iterable[Site], replied: Collection[str]) -> None:
        """Raises RunError when no round can measure the metric, so that a run ends early and not without a best model.

        sites: all sites. replied: the names of those whose updates were used in the round. A round that sampled only
        some of the sites with the modalities shows nothing.
        """
        if self.selection is None or self.value is not None:
            return
        wanted = f"federation.keep.best is {str(self.selection)!r}, but"
        if self.selection.on == TEST:
            raise RunError(f"{wanted} no example of the test shard has {_listed(self.selection)}")
        holders = sorted(site.name for site in sites if site.modalities.issuperset(self.selection.subset.split("+")))
        if number and all(name in replied for name in holders):
            why = "no site has these modalities"
            if holders:
                why = f"{', '.join(holders)} sent none: a policy withholds them, or the site has no such examples"
            raise RunError(
                f"{wanted} no site sends validation figures of {self.selection.subset}; {why}. Choose another "
                "subset or test, or remove federation.keep.best"
            )

    def _improves(self, value: float) -> bool:
        """Whether a value is better than the best one so far. An equal value is not."""
        if self.value is None or self.metric is None:
            return True
        return value > self.value if self.metric.metric.higher_is_better else value < self.value

    @property
    def stopped(self) -> str:
        """The reason why the run ends early, or ""."""
        if self.patience is None or self.stale < self.patience:
            return ""
        return (
            f"{self.selection} did not improve in {self.patience} round{'s' * (self.patience != 1)}; the best model is "
            f"of round {self.round}"
        )

    def about(self) -> dict[str, Any] | None:
        """The description of the best model for summary.json and for the model's file; None if there is none."""
        if self.selection is None or self.value is None:
            return None
        chosen = {"metric": self.selection.metric, "subset": self.selection.subset, "on": self.selection.on}
        return {"round": self.round, **chosen, "value": self.value}

    def state(self) -> dict[str, Any]:
        """The state for the checkpoint, without the parameters."""
        return {"round": self.round, "value": self.value, "stale": self.stale, "returned": self.returned}

    def restore(self, state: Mapping[str, Any], params: Params) -> None:
        """Restore the state of a checkpoint."""
        self.round, self.value = state["round"], state["value"]
        self.stale, self.returned, self.params = state["stale"], state["returned"], params


def _listed(selection: Selection) -> str:
    return " and ".join(selection.subset.split("+"))
