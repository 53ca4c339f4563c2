"""The file models.lock.json in a site's folder of models: the fetched models with their revision and content hash."""

import json
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from common.config.component import Options
from common.errors import ModelError
from common.files import write_whole

LOCK = "models.lock.json"


class Fetched(Options):
    """A model that was fetched from a model hub."""

    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """The commit of its repository."""
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16,64}$")
    """The hash of its files, see `common.frozen.pretrained.fingerprint`."""


_Lock = TypeAdapter(dict[str, Fetched])


def read_lock(folder: Path) -> dict[str, Fetched]:
    """The fetched models by name; empty if no model was fetched.

    Raises ModelError when the file is malformed, because the models could then not be checked.
    """
    path = folder / LOCK
    try:
        return _Lock.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def pinned(folder: Path, name: str) -> str | None:
    """The fingerprint that a model in a folder of models must have; None if the model was not fetched."""
    found = read_lock(folder).get(name)
    return found.fingerprint if found else None


def pin(folder: Path, name: str, fetched: Fetched) -> None:
    """Write an entry for a fetched model."""
    lock = {known: about.model_dump() for known, about in sorted({**read_lock(folder), name: fetched}.items())}
    write_whole(folder / LOCK, json.dumps(lock, indent=1).encode() + b"\n")
