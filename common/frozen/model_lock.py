"""Which models a site has fetched, in which revision and with which content: the file models.lock.json beside them."""

import json
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from common.config.component import Options
from common.errors import ModelError
from common.files import write_whole

LOCK = "models.lock.json"


class Fetched(Options):
    """A model that was fetched from a hub."""

    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """The commit of its repository."""
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16,64}$")
    """Of its files, see `common.frozen.pretrained.fingerprint`."""


_Lock = TypeAdapter(dict[str, Fetched])


def read_lock(folder: Path) -> dict[str, Fetched]:
    """By name; empty where nothing was fetched.

    Raises ModelError for a file that is none: what it pinned must not pass unchecked.
    """
    path = folder / LOCK
    try:
        return _Lock.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def pinned(folder: Path, name: str) -> str | None:
    """The fingerprint that a model below a folder of models must have; None where it was not fetched."""
    found = read_lock(folder).get(name)
    return found.fingerprint if found else None


def pin(folder: Path, name: str, fetched: Fetched) -> None:
    """Note what was fetched."""
    lock = {known: about.model_dump() for known, about in sorted({**read_lock(folder), name: fetched}.items())}
    write_whole(folder / LOCK, json.dumps(lock, indent=1).encode() + b"\n")
