"""MLflow: a run with parameters, metrics by round, tags, and the report as an artifact.

Without an address, the runs of a folder share one database: mlflow.db next to the run folders, for
`mlflow server --backend-store-uri sqlite:///runs/mlflow.db`.
"""

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from common.config.experiment import Experiment
from server.record.checkpoint import flat
from server.record.scalars import scalars
from server.trackers.base import Tracker, TrackerOptions
from server.trackers.shared.identity import remember, remembered
from server.trackers.shared.packages import needed

NAME, PROJECT = "mlflow", "fedmosaic"
ADDRESS, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
SURROUNDINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_CONFIGURE_LOGGING": "false"}
"""MLflow sends nothing about its use, and leaves the log of the run alone. A user's own values are kept."""
CHATTY = ("alembic", "mlflow", "urllib3")
"""Loggers that report each migration of a database and each repeated request."""
MOST_PARAMS, MOST_METRICS, LONGEST_NAME, LONGEST_VALUE = 100, 1000, 250, 6000
"""The limits of MLflow: parameters and metrics per request, characters of a name and of a parameter."""
FILES = ("experiment.yaml", "report.html")
SQLITE = "sqlite:///"
STATES = {"completed": "FINISHED"}


class MLflowTracker(Tracker):
    """A run of MLflow. A resumed run continues it, unless the server does not know it."""

    def __init__(self, options: "MLflow") -> None:
        self._options = options

    def begin(self, experiment: Experiment, folder: Path, resumed: bool) -> None:
        """Start a run with parameters and tags, or continue it."""
        for name, value in SURROUNDINGS.items():
            os.environ.setdefault(name, value)
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        tracking = needed("mlflow.tracking", NAME)
        self._entities = needed("mlflow.entities", NAME)
        self._folder, self._last = folder, 0
        address = self._options.tracking_uri or os.environ.get(ADDRESS) or f"{SQLITE}{folder.parent / 'mlflow.db'}"
        self._client = tracking.MlflowClient(address)
        self._run = self._known(remembered(folder, NAME)) if resumed else ""
        if self._run:
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._new(experiment, address)
        remember(folder, NAME, self._run)

    def _known(self, run: str) -> str:
        """The identity, or "" if the server does not know it."""
        failure = needed("mlflow.exceptions", NAME).MlflowException
        try:
            return str(self._client.get_run(run).info.run_id) if run else ""
        except failure as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return ""

    def _new(self, experiment: Experiment, address: str) -> str:
        name = self._options.experiment or os.environ.get(EXPERIMENT) or PROJECT
        known = self._client.get_experiment_by_name(name)
        if known is None:
            local = (self._folder.parent / "mlartifacts").as_uri() if address.startswith("sqlite:") else None
            group = self._client.create_experiment(name, artifact_location=local)
        else:
            group = known.experiment_id
        tags = {"name": experiment.name, "method": experiment.method["name"], "seed": str(experiment.seed)}
        run = str(self._client.create_run(group, run_name=self._folder.name, tags=tags).info.run_id)
        params = [
            self._entities.Param(_allowed(key), _text(value)[:LONGEST_VALUE])
            for key, value in flat(json.loads(experiment.to_json())).items()
        ]
        for start in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(run, params=params[start : start + MOST_PARAMS])
        return run

    def round(self, line: Mapping[str, Any]) -> None:
        """Send the numbers of the line, with the round as their step."""
        self._last = line["round"]
        self._send(line)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Send the numbers of the summary, the files that exist, and the status."""
        self._send({"summary": summary})
        for name in FILES:
            if (self._folder / name).is_file():
                self._client.log_artifact(self._run, str(self._folder / name))
        self._client.set_terminated(self._run, STATES.get(summary["status"], "FAILED"))

    def _send(self, values: Mapping[str, Any]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(_allowed(tag), float(value), now, self._last) for tag, value in scalars(values)
        ]
        for start in range(0, len(metrics), MOST_METRICS):
            self._client.log_batch(self._run, metrics=metrics[start : start + MOST_METRICS])


class MLflow(TrackerOptions):
    """Runs in an MLflow server, or in a database file. Package: `fedmosaic[mlflow]`. A server's token or password comes
    from MLflow's own environment variables: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD."""

    tracking_uri: str | None = None
    """The address of the MLflow server, e.g. `http://127.0.0.1:5000`, or of a database file, e.g. `sqlite:///mlflow.db`.
    None: that in MLFLOW_TRACKING_URI, or if it is not set, `mlflow.db` in the folder of the runs."""
    experiment: str | None = Field(None, min_length=1, max_length=500)
    """The name of MLflow's group of runs. None: that in MLFLOW_EXPERIMENT_NAME, or `fedmosaic`."""

    @field_validator("tracking_uri")
    @classmethod
    def _without_secrets(cls, address: str | None) -> str | None:
        if address is None:
            return None
        try:
            parts = urlsplit(address)
            secret = "@" in parts.netloc
        except ValueError:
            raise ValueError(f"{address!r} is not an address") from None
        if secret:
            raise ValueError("the address must not contain a user or a password: set MLFLOW_TRACKING_USERNAME and "
                             "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN")  # fmt: skip
        if not parts.scheme or parts.scheme == "file":
            raise ValueError(f"MLflow no longer writes to folders: use a database file, e.g. {SQLITE}mlflow.db, or a "
                             "server, e.g. http://127.0.0.1:5000")  # fmt: skip
        if address.startswith(SQLITE):
            return f"{SQLITE}{Path(address.removeprefix(SQLITE)).resolve()}"
        return address

    def build(self) -> MLflowTracker:
        """A tracker for one run."""
        return MLflowTracker(self)


def _allowed(name: str) -> str:
    """A name without characters that MLflow refuses, e.g. test/audio.image/accuracy for test/audio+image/accuracy."""
    return re.sub(r"[^\w\-. :/]", ".", name)[:LONGEST_NAME]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
