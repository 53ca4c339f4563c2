"""Reads the folder of a run, if this release understands its files."""

from pathlib import Path

from common.errors import ConfigError
from server.record.format import FORMAT
from server.report.run import Run, read_run

EXPERIMENT = "experiment.yaml"


def read_known(source: str, folder: Path) -> Run:
    """The content of a run folder, without missing files. source: the beginning of an error's message.

    Raises ConfigError for a folder without a run, and for files of another format.
    """
    if not (folder / EXPERIMENT).is_file():
        raise ConfigError(source, [f"{folder} is not a run folder: it has no {EXPERIMENT}"])
    run = read_run(folder)
    version = run.told("format")
    if (run.summary or run.rounds) and version != FORMAT:
        mistake = f"its files have format {version or 1}, and this release reads format {FORMAT}"
        raise ConfigError(source, [f"{folder}: {mistake}; use the release that made the run"])
    return run
