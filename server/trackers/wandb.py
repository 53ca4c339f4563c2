"""Weights & Biases: a run with its configuration, metrics by round and the summary, online or in files for later.

The files are in `wandb` in the run folder. `wandb sync runs/NAME/wandb/offline-run-*` sends those of an offline run.
"""

import json
import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from common.config.experiment import Experiment
from common.errors import RunError
from server.record.scalars import scalars
from server.trackers.base import Tracker, TrackerOptions
from server.trackers.shared.identity import remember, remembered
from server.trackers.shared.packages import needed

NAME, PROJECT = "wandb", "fedmosaic"
FINISH_SECONDS, BEGIN_SECONDS = 8.0, 60.0
"""The longest waits of the library. The files in the run folder keep all that was not sent."""


class WandbTracker(Tracker):
    """A run of W&B. A resumed run has the same id."""

    def __init__(self, options: "Wandb") -> None:
        self._options = options
        self._run: Any = None

    def begin(self, experiment: Experiment, folder: Path, resumed: bool) -> None:
        """Start a run, or continue it.

        Raises RunError without an API key, because the library would ask for one on the terminal.
        """
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        logging.getLogger(NAME).propagate = False  # the library has a log of its own in the run folder
        wandb = self._wandb = needed(NAME, NAME)
        mode = self._options.mode or os.environ.get("WANDB_MODE") or "online"
        if mode == "online" and not wandb.login(prompt=False):
            raise RunError("there is no API key: set WANDB_API_KEY, or WANDB_MODE=offline")
        identity = (remembered(folder, NAME) if resumed else "") or uuid.uuid4().hex[:8]
        remember(folder, NAME, identity)
        self._run = wandb.init(
            project=self._options.project or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=self._options.entity,
            name=folder.name,
            id=identity,
            resume="allow",
            dir=str(folder),
            config=json.loads(experiment.to_json()),
            tags=[experiment.name[:64], experiment.method["name"][:64]],
            settings=wandb.Settings(
                mode=mode,
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                init_timeout=BEGIN_SECONDS,
                finish_timeout=FINISH_SECONDS,
                x_disable_stats=True,
                x_save_requirements=False,
                x_disable_meta=True,
                x_disable_machine_info=True,
            ),
        )

    def round(self, line: Mapping[str, Any]) -> None:
        """Send the numbers of the line, with the round as their step."""
        self._run.log(dict(scalars(line)), step=line["round"])

    def end(self, summary: Mapping[str, Any]) -> None:
        """Send the summary, and the status."""
        self._run.summary.update({"status": summary["status"], **dict(scalars({"summary": summary}))})
        self._finish(0 if summary["status"] == "completed" else 1)

    def close(self) -> None:
        """End the run as failed if `end` did not end it."""
        if self._run is not None:
            self._finish(1)

    def _finish(self, status: int) -> None:
        run, self._run = self._run, None
        run.finish(exit_code=status)
        if self._wandb.run is None:  # no other run of this process; the end of the service completes the files
            self._wandb.teardown(status)


class Wandb(TrackerOptions):
    """Runs at Weights & Biases. Package: `fedmosaic[wandb]`. The key comes from the library's own environment variable
    WANDB_API_KEY, and the address of a server of your own from WANDB_BASE_URL."""

    project: str | None = Field(None, min_length=1, max_length=128)
    """The project. None: that in WANDB_PROJECT, or `fedmosaic`."""
    entity: str | None = Field(None, min_length=1)
    """The user or the team of the project. None: that in WANDB_ENTITY, or that of the key."""
    mode: Literal["online", "offline"] | None = None
    """`offline` only writes files, for `wandb sync`. None: that in WANDB_MODE, or `online`."""

    def build(self) -> WandbTracker:
        """A tracker for one run."""
        return WandbTracker(self)
