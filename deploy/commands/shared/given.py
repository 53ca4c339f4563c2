"""Checks of the paths on a command line. They run before large libraries load, so that a wrong path fails at once."""

from collections.abc import Iterable
from pathlib import Path

from common.errors import ConfigError, ShardError


def readable(path: Path) -> None:
    """Raises ConfigError, with the message of the later read, when a config file cannot be read."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None


def shards_there(folders: Iterable[Path | None]) -> None:
    """Raises ShardError for the first path that is not a folder. None means that the option is absent."""
    for folder in folders:
        if folder is not None and not folder.is_dir():
            raise ShardError(f"shard {folder}: there is no such folder")


def runs_there(command: str, folders: Iterable[Path]) -> None:
    """Raises ConfigError, with all folders concerned, when a folder is not the folder of a run."""
    missing = [folder for folder in folders if not (folder / "experiment.yaml").is_file()]
    if missing:
        raise ConfigError(command, [f"{folder} is not a run folder: it has no experiment.yaml" for folder in missing])
