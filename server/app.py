"""The ServerApp: the run's configuration -> a federation -> a run folder."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.build import deterministic
from common.config import Experiment, parse, read
from common.errors import ConfigError, FedmosaicError, RunError
from server.checkpoint import Checkpoint, check_same, load_checkpoint
from server.federation import Federation
from server.record import RunFolder, free_folder, unfinished_folder
from server.report import write_report

log = logging.getLogger(__name__)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run's configuration names.

    A run that fails leaves a summary with the reason and raises, so that Flower's status says failed.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    deterministic()
    settings = {key: str(value) for key, value in context.run_config.items()}
    experiment = read_experiment(settings["experiment"])
    folder, checkpoint = _folder(settings, experiment)
    after = (checkpoint.round if checkpoint else -1) if settings["resume"] else None
    run = RunFolder(folder, experiment, after)
    test_shard = Path(settings["test-shard"]) if settings["test-shard"] else None
    probe_shard = Path(settings["probe-shard"]) if settings["probe-shard"] else None
    started = time.perf_counter()
    status, reason, federation = "failed", "the ServerApp stopped on an unexpected error, see its log", None
    try:
        federation = Federation(experiment, grid, test_shard, run, probe_shard, checkpoint)
        federation.run()
        status, reason = "completed", ""
    except FedmosaicError as error:
        reason = str(error)
        raise
    finally:
        about = {"name": folder.name, "status": status, "reason": reason, "engine": settings["engine"]}
        figures = federation.summary() if federation else {}
        _conclude(run, about | _described(experiment) | figures | {"seconds": time.perf_counter() - started})


def _folder(settings: dict[str, str], experiment: Experiment) -> tuple[Path, Checkpoint | None]:
    """The folder of the run, and the checkpoint to go on from.

    Raises ConfigError when the run cannot be resumed with this experiment.
    """
    wanted = Path(settings["run-dir"]) if settings["run-dir"] else Path("runs") / experiment.name
    if not settings["resume"]:
        return (wanted if settings["run-dir"] else free_folder(wanted)), None
    folder = wanted if settings["run-dir"] else unfinished_folder(wanted)
    checkpoint = load_checkpoint(folder)
    if checkpoint:
        check_same(experiment, checkpoint)
    log.info("going on after round %d", checkpoint.round if checkpoint else 0)
    return folder, checkpoint


def _conclude(run: RunFolder, summary: dict[str, Any]) -> None:
    """Write what tells people how the run ended. What cannot be written must not hide why it ended."""
    try:
        run.summary(summary)
        write_report(run.folder)
    except (OSError, RunError) as error:
        log.error("%s", error)


def _described(experiment: Experiment) -> dict[str, Any]:
    return {
        "method": experiment.method["name"],
        "strategy": (experiment.strategy or {}).get("name"),
        "dataset": experiment.data.set["name"] if experiment.data.set else "the sites' own shards",
        "seed": experiment.seed,
    }


def read_experiment(given: str) -> Experiment:
    """The experiment of a run: the JSON of one, or the path of a config file (relative to the app's folder or here).

    Raises ConfigError.
    """
    if given.lstrip().startswith("{"):
        try:
            return parse(json.loads(given), "experiment")
        except ValueError as error:
            raise ConfigError("experiment", [f"not JSON: {error}"]) from None
    path = Path(given)
    beside = Path(__file__).resolve().parent.parent / path
    return read(beside if not path.exists() and beside.exists() else path)
