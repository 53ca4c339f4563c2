"""Where the weights of frozen models lie: found by name, never changed, never unpickled.

A name such as "birds-coca" or "Salesforce/blip2-opt-2.7b" is, in this order: a folder below $FEDMOSAIC_MODELS, a folder
that comes with the project, a repository of the Hugging Face hub (its cache first). It is never a path: names come from
the experiment, which a server sends.
"""

import hashlib
import os
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from common.errors import ModelError

VARIABLE = "FEDMOSAIC_MODELS"
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model"]
"""What is read of a model's folder. Weights in other formats may hold code."""
BLOCK = 1 << 20
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")


def locate(name: str) -> Path:
    """The folder of a model.

    Raises ModelError for a path instead of a name, and, saying which folder to fill, when the model is not here and
    cannot be downloaded.
    """
    if not NAME.fullmatch(name):
        raise ModelError(
            f"model {name!r}: a model is named, as NAME or OWNER/NAME, and looked for in the folder that the "
            f"environment variable {VARIABLE} names; paths are refused, because experiments come from the server"
        )
    for place in _places():
        if (place / name).is_dir():
            return place / name
    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).split("\n")[0]
    folder = Path(os.environ.get(VARIABLE) or "models").resolve() / name
    hint = "" if os.environ.get(VARIABLE) else f" and set {VARIABLE}={folder.parents[name.count('/')]}"
    raise ModelError(
        f"model {name!r} is not here and cannot be downloaded ({why}): fill the folder {folder} with its "
        f"{', '.join(WANTED)} files{hint}"
    )


def _places() -> list[Path]:
    """Folders of models by name."""
    given = os.environ.get(VARIABLE)
    embedded = embedded_models()
    return [*([Path(given)] if given else []), *([embedded] if embedded else [])]


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
