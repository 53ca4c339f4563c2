"""One run of a benchmark, from shards to figures."""

import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from client.site import Site
from common.blocks import Params, set_params
from common.build import build_model
from common.config.experiment import Experiment
from common.data.shard import Shard
from common.data.sites import PROBE, TEST, client_folders
from common.errors import FedmosaicError, TrainingError
from common.hardware.computing import compute_deterministically
from common.hardware.device import CPU, find_device
from common.modality import Modality, subset_name
from common.seeding import derive
from common.split.make import make_shards, recipe
from deploy.engines.in_process import InProcessGrid, own_site
from deploy.shards.complete import PROBE_PER_CLASS, complete_shards, make_probe, needs_probe
from deploy.study.bench.arrangements import federations
from deploy.study.bench.attacks import with_hostile
from deploy.study.bench.origin import commit
from deploy.study.bench.probe import probe
from deploy.study.bench.suite import Job
from server.record.run_folder import RunFolder, read_rounds
from server.rounds.agreement import with_agreed_columns
from server.rounds.federation import Federation

Figures = dict[str, Any]


def shards_of(job: Job, work: Path) -> Path:
    """The folder with the shards of a job: the user's own, or a folder for each recipe of shards."""
    return job.own or work / "shards" / f"{derive(0, str(recipe(job.data))):016x}"


def prepare(job: Job, users: Sequence[Experiment], work: Path) -> None:
    """Make the shards of a job if they do not exist, with the generated values and the probe set that the experiments
    in `users` need."""
    compute_deterministically()
    folder = shards_of(job, work)
    if not folder.exists():
        make_shards(job.data, folder)
    clients = client_folders(folder, job.data.data.clients)
    for user in {str(user.completion): user for user in users if user.completion}.values():
        complete_shards(user, clients, "cpu", quiet=True)
    probed = [user for user in users if needs_probe(user)]
    if probed and not (folder / PROBE).exists():
        whole = max(probed, key=lambda user: len(user.completion))
        whole = whole if job.probe is None else whole.model_copy(update={"completion": job.probe})
        make_probe(whole, Shard.open(clients[0]).info, folder / PROBE, PROBE_PER_CLASS, "cpu")


@lru_cache(maxsize=1)
def _sites(folder: Path, clients: int, device: str) -> list[Site]:
    """The sites of a folder of shards. The cache keeps the prepared examples of the last folder."""
    return [own_site(shard, device) for shard in client_folders(folder, clients)]


UNGUARDED = {"collapse": None, "max_update_ratio": None, "max_weight": None}
"""Options that switch off the protection against hostile sites. The protection would hide effects of a method or of a
strategy."""


def perform(job: Job, work: Path, device: str = CPU) -> Figures:
    """Run a job on a device. Returns its figures.

    status: "completed"; "diverged" if a loss was not finite, or was worse than guessing in the last round of a job
    without hostile sites; otherwise "failed" with the reason.
    """
    compute_deterministically()
    started, computed = time.perf_counter(), time.process_time()
    shards = shards_of(job, work)
    sites = _sites(shards, job.data.data.clients, device)
    figures: Figures = {"setting": job.setting, "method": job.method, "seed": job.seed, "value": job.value}
    figures["commit"] = commit()
    try:
        groups = federations(job.arrangement, job.experiment, sites)
        groups = [with_hostile(group, job.hostile) for group in groups]
        runs = [_federation(job.experiment, group, shards, job.probed, device) for group in groups]
        figures |= _mean_figures(runs)
        guessed = job.experiment.task.name == "single-label" and job.hostile is None
        worse = guessed and figures["loss"] > math.log(figures["classes"])
        figures |= (
            {"status": "diverged", "reason": "the loss is above the loss of guessing"}
            if worse
            else {"status": "completed"}
        )
    except FedmosaicError as error:
        diverged = isinstance(error, TrainingError) or TrainingError.__name__ in str(error)
        figures |= {"status": "diverged" if diverged else "failed", "reason": str(error)}
    cpu = time.process_time() - computed
    return figures | {"seconds": time.perf_counter() - started, "cpu_seconds": cpu}


def _federation(experiment: Experiment, sites: list[Site], shards: Path, probed: bool, device: str) -> Figures:
    """The figures of one federation: those of every round, and with `probed` the probes of the last model."""
    raw = experiment.data.model_copy(update={"clients": len(sites)})
    settings = experiment.federation
    sample = min(settings.sample, len(sites)) if settings.sample else None
    experiment = experiment.model_copy(
        update={"data": raw, "federation": settings.model_copy(update={"sample": sample, **UNGUARDED})}
    )
    with tempfile.TemporaryDirectory(prefix="fedmosaic-bench-") as folder:
        run, probe_set = RunFolder(Path(folder), experiment), shards / PROBE
        grid = InProcessGrid(sites)
        experiment = with_agreed_columns(experiment, grid, run)
        federation = Federation(
            experiment,
            grid,
            shards / TEST,
            run,
            probe_set if probe_set.exists() else None,
            find_device(device),
        )
        params = federation.run()
        rounds = read_rounds(Path(folder))
    probes = _probes(experiment, federation, params, sites) if probed else {}
    return {
        "rounds": [_round_figures(line) for line in rounds],
        "probe": probes,
        "complete": subset_name(experiment.modalities),
        "classes": len(federation.classes),
        "loss": rounds[-1]["losses"]["fused"],
    }


def _probes(
    experiment: Experiment, federation: Federation, params: Params, sites: Sequence[Site]
) -> dict[Modality, float]:
    """The linear probes of the last model's encoders."""
    assert federation.test is not None
    model = build_model(experiment, len(federation.classes))
    set_params(model, params)
    training = [site.open(experiment).loaded.examples for site in sites]
    found = {m: probe(model, m, training, federation.test.examples) for m in experiment.modalities}
    return {m: value for m, value in found.items() if value is not None}


def _round_figures(line: Figures) -> Figures:
    """Test figures by subset, the clients' validation figures of the model that they received in the round, and what
    the round cost: the updates, their bytes, and the seconds of training at all clients together."""
    return {
        "test": {name: _numbers(figures) for name, figures in line["test"].items()},
        "received": {name: _numbers(figures) for name, figures in line["validation"].items()},
        "updates": len(line["clients"]),
        "bytes_up": line["bytes_up"],
        "train_seconds": sum(told["seconds"]["train"] for told in line["clients"].values()),
    }


def _numbers(figures: Figures) -> dict[str, float]:
    """Every figure that is one number, and the standard deviation of the recall over classes, "spread"."""
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    recalls = [recall for recall in figures["by_class"].get("sensitivity", ()) if recall is not None]
    return numbers | ({"spread": statistics.pstdev(recalls)} if recalls else {})


def _mean_figures(runs: list[Figures]) -> Figures:
    """The means over the federations of a row: one federation, or one per client that trains alone."""
    return _mean(runs) if len(runs) > 1 else runs[0]


def _mean(values: list[Any]) -> Any:
    """The means of numbers at the same place in equal structures. Other values must be equal."""
    first = values[0]
    if isinstance(first, dict):
        shared = [key for key in first if all(key in value for value in values)]
        return {key: _mean([value[key] for value in values]) for key in shared}
    if isinstance(first, list):
        return [_mean(list(column)) for column in zip(*values, strict=True)]
    return first if isinstance(first, str) else sum(values) / len(values)
