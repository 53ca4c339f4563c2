"""What a command line names is looked at before anything large is loaded: a wrong path is answered at once."""

from collections.abc import Iterable
from pathlib import Path

from common.errors import ConfigError, ShardError


def readable(path: Path) -> None:
    """Raises ConfigError, as reading it would, for a config that cannot be read."""
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None


def shards_there(folders: Iterable[Path | None]) -> None:
    """Raises ShardError for the first one that is no folder; None stands for one that was not given."""
    for folder in folders:
        if folder is not None and not folder.is_dir():
            raise ShardError(f"shard {folder}: there is no such folder")


def runs_there(command: str, folders: Iterable[Path]) -> None:
    """Raises ConfigError with every folder that is no run's."""
    missing = [folder for folder in folders if not (folder / "experiment.yaml").is_file()]
    if missing:
        raise ConfigError(command, [f"{folder} is no run's folder: it has no experiment.yaml" for folder in missing])
