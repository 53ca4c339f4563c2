"""Where the weights of frozen models lie: found by name, never changed, never unpickled, never fetched.

A name such as "birds-coca" or "Salesforce/blip2-opt-2.7b" is a folder below $FEDMOSAIC_MODELS, else one that comes with
the project. It is never a path, and nothing is downloaded: names come from the experiment, which a server sends. A site
fills the folder itself (`fedmosaic models fetch`), and its policy may name the models that are used (`only`).
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from common.errors import ModelError
from common.frozen.model_lock import pinned

VARIABLE = "FEDMOSAIC_MODELS"
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model"]
"""What is read of a model's folder. Weights in other formats may hold code."""
BLOCK = 1 << 20
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_permitted: ContextVar[frozenset[str] | None] = ContextVar("permitted models", default=None)


@contextmanager
def only(names: Iterable[str] | None) -> Iterator[None]:
    """Within, no model of another name is found. None: any is."""
    before = _permitted.set(None if names is None else frozenset(names))
    try:
        yield
    finally:
        _permitted.reset(before)


def permitted() -> frozenset[str] | None:
    """The names that `only` allows here; None: any."""
    return _permitted.get()


def locate(name: str) -> Path:
    """The folder of a model.

    Raises ModelError for a path instead of a name, for a model that may not be used here, for one whose files are not
    those that were fetched, and, saying how to fetch it, for one that is not here.
    """
    check_name(name)
    allowed = permitted()
    if allowed is not None and name not in allowed:
        raise ModelError(f"model {name!r} is none of those that this site's policy names (models)")
    for place in _places():
        if (place / name).is_dir():
            _check_lock(place, name)
            return place / name
    folder = models_folder() / name
    hint = "" if os.environ.get(VARIABLE) else f", and set {VARIABLE}={models_folder()}"
    raise ModelError(
        f"model {name!r} is not here: `fedmosaic models fetch {name}` fetches it from the Hugging Face hub, or "
        f"fill the folder {folder} with its {', '.join(WANTED)} files{hint}"
    )


def check_name(name: str) -> None:
    """Raises ModelError for a path instead of a name."""
    if not NAME.fullmatch(name):
        raise ModelError(
            f"model {name!r}: a model is named, as NAME or OWNER/NAME, and looked for in the folder that the "
            f"environment variable {VARIABLE} names; paths are refused, because experiments come from the server"
        )


def models_folder() -> Path:
    """Where this machine's own models lie."""
    return Path(os.environ.get(VARIABLE) or "models").resolve()


def _places() -> list[Path]:
    """Folders of models by name."""
    embedded = embedded_models()
    return [*([models_folder()] if os.environ.get(VARIABLE) else []), *([embedded] if embedded else [])]


def _check_lock(place: Path, name: str) -> None:
    """Raises ModelError when the files of a model that was fetched are others now."""
    expected = pinned(place, name)
    if expected is not None and fingerprint(place / name) != expected:
        raise ModelError(f"{place / name}: its files are not those that were fetched; fetch the model again")


def embedded_models() -> Path | None:
    """The folder of the models that come with the project. What Flower sends to the nodes is a copy of the code without
    weights, so they are looked for in the package of the installation that is not sent."""
    spec = find_spec("deploy")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "pretrain" / "weights"


def fingerprint(folder: Path) -> str:
    """A digest of everything in a model's folder that is read of it."""
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
