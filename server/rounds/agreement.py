"""Before the first round: the sites describe their tables, and the server decides on the columns of the model.

An experiment that contains all columns needs no agreement. A site that keeps its statistics does not take part in the
agreement, but may take part in the run.
"""

import logging
import time
from collections.abc import Mapping
from functools import partial

from flwr.serverapp import Grid

from common.columns import Category, Described
from common.config.experiment import Experiment
from common.config.tables import with_columns, with_columns_of, without_columns
from common.errors import RunError
from common.modality import Modality
from server.aggregation.columns import agree, clashes
from server.clients.roster import Roster, listed
from server.record.run_folder import RunFolder
from server.sites.attention import alike

log = logging.getLogger(__name__)


def with_agreed_columns(experiment: Experiment, grid: Grid, run: RunFolder) -> Experiment:
    """The experiment with the columns of all tables, which is also written into the run folder.

    A resumed run has the columns of its checkpoint. Raises RunError when the sites' columns differ in type or unit, or
    when no site describes a table.
    """
    if run.checkpoint:
        experiment = with_columns_of(experiment, run.checkpoint.about["experiment"])
    if lacking := without_columns(experiment):
        experiment = with_columns(experiment, _agreement(experiment, lacking, grid, run))
    run.experiment(experiment)
    return experiment


def _agreement(
    experiment: Experiment, lacking: list[Modality], grid: Grid, run: RunFolder
) -> dict[Modality, dict[str, object]]:
    """The agreed columns by modality, as JSON values."""
    roster, settings = Roster(experiment, with_weights=False), experiment.federation
    roster.classes = tuple(experiment.data.classes) if experiment.data.classes else None
    said = partial(run.status, until=time.time() + settings.wait_seconds)
    roster.gather(grid, experiment.data.clients, settings.wait_seconds, said)
    roster.settle()
    tables = {m: {site.name: site.tables[m] for site in roster.free.values() if m in site.tables} for m in lacking}
    mistakes = [f"{m}: {mistake}" for m, sites in tables.items() for mistake in _mistakes(sites)]
    if mistakes:
        lines = "".join(f"\n  - {mistake}" for mistake in mistakes)
        columns = ", ".join(f"model.encoders.{m}.columns" for m in lacking)
        remedy = "correct columns.json at the named sites, or " if any(tables.values()) else ""
        remedy += f"give the columns in the experiment, {columns}"
        lines += listed(roster.refused | roster.lost)
        raise RunError(f"the sites do not agree on the columns of their tables{lines}\n  what to do: {remedy}")
    return {m: _columns(m, sites) for m, sites in tables.items()}


def _mistakes(sites: Mapping[str, Mapping[str, Described]]) -> list[str]:
    if not sites:
        return ["no site has described its columns"]
    if found := list(clashes(sites)):
        return found
    if not agree(sites)[0]:
        return ["no column can be used, because no site has statistics of enough cells"]
    return []


def _columns(modality: Modality, sites: Mapping[str, Mapping[str, Described]]) -> dict[str, object]:
    """The agreed columns of a table as JSON values. Logs them, and what the operator should look at."""
    agreed, unknown = agree(sites)
    log.info("%s: %d columns are agreed by %s: %s", modality, len(agreed), ", ".join(sorted(sites)), ", ".join(agreed))
    for name in unknown:
        log.warning("%s: column %s is left out, because no site has statistics of enough cells", modality, name)
    for same in alike(list(agreed)):
        log.warning("%s: the columns %s differ only in case or blanks: are they the same column?", modality, same)
    for name, column in agreed.items():
        for same in alike(column.values) if isinstance(column, Category) else ():
            log.warning("%s: the categories %s of column %s differ only in case or blanks", modality, same, name)
    return {name: column.model_dump(mode="json") for name, column in agreed.items()}
