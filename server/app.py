"""The ServerApp: from a run configuration to a federation and its run folder."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.config.experiment import Experiment
from common.config.reading import parse, read
from common.errors import ConfigError, FedmosaicError, RunError
from common.files import keep_private
from common.hardware.computing import Hardware
from common.hardware.faults import device_error
from server.record.run_folder import RunFolder, free_folder, unfinished_folder
from server.rounds.agreement import with_agreed_columns
from server.rounds.federation import Federation
from server.rounds.starting import RESUMED, given_model
from server.trackers.shared.chosen import Trackers

log = logging.getLogger(__name__)
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment of the run configuration.

    A failed run writes a summary with the reason and raises, so that Flower's status is "failed".
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    keep_private()
    settings = {key: str(value) for key, value in context.run_config.items()}
    experiment = read_experiment(settings["experiment"])
    init = Path(settings["init"]) if settings["init"] else None
    if init and settings["resume"]:
        raise ConfigError("--init", [RESUMED])
    hardware = Hardware(
        settings["server-device"], int(settings["threads"]), deterministic=settings["engine"] != "superlink"
    )
    trackers = Trackers(settings["trackers"])
    run = RunFolder(_folder(settings, experiment), experiment, resume=bool(settings["resume"]))
    test_shard = Path(settings["test-shard"]) if settings["test-shard"] else None
    probe_shard = Path(settings["probe-shard"]) if settings["probe-shard"] else None
    started = time.perf_counter()
    status, reason, federation = "failed", "the ServerApp stopped on an unexpected error; see its log", None
    try:
        device = hardware.use(experiment.train.deterministic, experiment.train.tf32)
        given = given_model(init, run)
        experiment = with_agreed_columns(experiment, grid, run)
        trackers.begin(experiment, run.folder, resumed=bool(settings["resume"]))
        run.listeners.append(trackers.round)
        federation = Federation(experiment, grid, test_shard, run, probe_shard, device, given)
        federation.add_intervals(federation.run())
        status, reason = "completed", ""
    except FedmosaicError as error:
        reason = str(error)
        raise
    except RuntimeError as error:
        known = device_error(error)
        reason = str(known) if known else reason
        raise known or error from error
    except KeyboardInterrupt:
        reason = "interrupted"
        raise
    finally:
        about = {"name": run.folder.name, "status": status, "reason": reason, "engine": settings["engine"]}
        figures = federation.summary() if federation else {}
        summary = about | _described(experiment) | figures | {"seconds": time.perf_counter() - started}
        _conclude(run, summary)
        trackers.end(summary)


def _folder(settings: dict[str, str], experiment: Experiment) -> Path:
    """The folder of the run: a new one, or the one of the run to continue."""
    if settings["run-dir"]:
        return Path(settings["run-dir"])
    wanted = Path("runs") / experiment.name
    return unfinished_folder(wanted) if settings["resume"] else free_folder(wanted)


def _conclude(run: RunFolder, summary: dict[str, Any]) -> None:
    """Write summary and report. A failure to write them must not hide the reason for the end of the run."""
    from server.report.page import write_report  # loaded at the end, so that no round waits for it

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
    """The experiment of a run. given: its JSON, or the path of a config file, relative to the app's folder or to this
    one.

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
