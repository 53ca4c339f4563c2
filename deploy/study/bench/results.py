"""The results of one setting of a suite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.modality import subset_name, subsets
from common.words.figures import LEADING
from deploy.study.bench.statistics import COSTS, Aim, Difference, Summary, difference, summarise
from deploy.study.bench.suite import Suite
from deploy.study.bench.trial import Figures


@dataclass(frozen=True)
class Results:
    """The results of one setting: the runs by method, the tuning runs by method, and the machine."""

    suite: Suite
    setting: str
    modalities: Sequence[str]
    runs: Mapping[str, Sequence[Figures]]
    tuning: Mapping[str, Sequence[Figures]]
    machine: str

    @property
    def aim(self) -> Aim:
        """The main metric, with its direction."""
        return self.suite.aim

    @property
    def metric(self) -> str:
        """The name of the main metric."""
        return self.aim.name

    @property
    def commits(self) -> list[str]:
        """The commits of the code of the runs: one, unless an interrupted benchmark continued with other code."""
        return sorted({run["commit"] for runs in (*self.runs.values(), *self.tuning.values()) for run in runs})

    @property
    def references(self) -> list[str]:
        """The rows of this setting to which differences are computed, with the main reference first."""
        return [name for name in self.suite.references if name in self.runs]

    @property
    def measures(self) -> list[str]:
        """The names of `statistics.measure` in the tables, with the main metric first, and the leading metrics of the
        task last, as far as a run has them."""
        parts = [subset_name(chosen) for chosen in subsets(self.modalities)][:-1]
        probed = self.suite.settings[self.setting].weak is not None
        probes = [f"probe:{m}" for m in self.modalities if probed]
        second = [*LEADING[self.suite.task][:2], "spread"]
        more = [name for name in second if name != self.metric and self._any(name)]
        return [self.metric, "chosen", *probes, *(f"{self.metric}:{part}" for part in parts), *more]

    @property
    def main(self) -> list[str]:
        """The measures of the first table."""
        weak = self.suite.settings[self.setting].weak
        alone = [f"{self.metric}:{m}" for m in self.modalities] if len(self.modalities) > 1 else []
        return [self.metric, *([f"probe:{weak}"] if weak else alone)]

    def _any(self, name: str) -> bool:
        return any(self.summary(method, name) is not None for method in self.runs)

    def summary(self, method: str, name: str) -> Summary | None:
        """The summary of a measure of a row. A unimodal row has no measures of several modalities."""
        if self.suite.methods[method].modality is not None and ":" not in name and name not in COSTS:
            return None
        return summarise(self.runs[method], name, self.aim)

    def difference(self, method: str, name: str, reference: str) -> Difference | None:
        """The difference of a measure between two rows."""
        if reference not in self.runs or method == reference or self.summary(method, name) is None:
            return None
        return difference(self.runs[method], self.runs[reference], name, self.aim)
