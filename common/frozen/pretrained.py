"""Finds the weights of frozen models by name. The weights are never changed, unpickled or fetched.

A name such as "birds-coca" or "Salesforce/blip2-opt-2.7b" is a folder in $FEDMOSAIC_MODELS, or else a folder that comes
with the project. A name is never a path, and nothing is downloaded, because names are in the experiment, which the
server sends. A site fills the folder itself (`fedmosaic models fetch`), and its policy may limit the models (`only`).
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from common.errors import ModelError
from common.frozen.model_lock import pinned

VARIABLE = "FEDMOSAIC_MODELS"
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model"]
"""The files that are read from a model's folder. Weights in other formats may contain code."""
BLOCK = 1 << 20
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_permitted: ContextVar[frozenset[str] | None] = ContextVar("permitted models", default=None)


@contextmanager
def only(names: Iterable[str] | None) -> Iterator[None]:
    """A context in which only models with these names are found. None: all models."""
    before = _permitted.set(None if names is None else frozenset(names))
    try:
        yield
    finally:
        _permitted.reset(before)


def permitted() -> frozenset[str] | None:
    """The names that `only` allows in this context. None: all names."""
    return _permitted.get()


def locate(name: str) -> Path:
    """The folder of a model.

    Raises ModelError in these cases: the name is a path, the site's policy does not allow the model, the model's files
    have changed since they were fetched, or there is no such model. The last message contains the command to fetch it.
    """
    check_name(name)
    allowed = permitted()
    if allowed is not None and name not in allowed:
        raise ModelError(f"model {name!r} is not in the list `models` of this site's policy")
    for place in _places():
        if (place / name).is_dir():
            _check_lock(place, name)
            return place / name
    folder = models_folder() / name
    hint = "" if os.environ.get(VARIABLE) else f", and set {VARIABLE}={models_folder()}"
    near = get_close_matches(name, sorted(_present()), n=1)
    meant = f". Did you mean {near[0]!r}?" if near else ""
    raise ModelError(
        f"model {name!r} is not on this machine: run `fedmosaic models fetch {name}` to fetch it from the Hugging Face "
        f"hub, or copy its {', '.join(WANTED)} files into the folder {folder}{hint}{meant}"
    )


def _present() -> Iterator[str]:
    """The names of the models on this machine."""
    for place in _places():
        for config in (*place.glob("*/*.json"), *place.glob("*/*/*.json")):
            yield config.parent.relative_to(place).as_posix()


def check_name(name: str) -> None:
    """Raises ModelError for a path instead of a name."""
    if not NAME.fullmatch(name):
        raise ModelError(
            f"model {name!r}: a model's name must be NAME or OWNER/NAME, a folder below the one in the environment "
            f"variable {VARIABLE}; paths are refused, because experiments come from the server"
        )


def models_folder() -> Path:
    """The folder with this machine's own models."""
    return Path(os.environ.get(VARIABLE) or "models").resolve()


def _places() -> list[Path]:
    """The folders in which models are searched, in order."""
    embedded = embedded_models()
    return [*([models_folder()] if os.environ.get(VARIABLE) else []), *([embedded] if embedded else [])]


def _check_lock(place: Path, name: str) -> None:
    """Raises ModelError when the files of a fetched model have changed."""
    expected = pinned(place, name)
    if expected is not None and fingerprint(place / name) != expected:
        raise ModelError(
            f"{place / name}: the files have changed since they were fetched; fetch the model again with "
            f"`fedmosaic models fetch {name}`"
        )


def embedded_models() -> Path | None:
    """The folder of the models that come with the project. Flower sends the nodes a copy of the code without weights,
    so the weights are searched in the package `deploy` of the installation, which is not sent."""
    spec = find_spec("deploy")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "pretrain" / "weights"


def fingerprint(folder: Path) -> str:
    """A hash of all files that are read from a model's folder."""
    files = sorted({path for pattern in WANTED for path in folder.rglob(pattern)})
    stamps = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _digest(folder, stamps)


@lru_cache(maxsize=64)
def _digest(folder: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, size, _ in stamps:
        digest.update(f"{Path(name).relative_to(folder)}\0{size}\0".encode())
        with Path(name).open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()[:16]
