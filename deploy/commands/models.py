"""`fedmosaic models`: list the frozen models of this machine, and fetch others."""

import argparse
import shutil
from pathlib import Path
from typing import Any

from common.errors import ModelError


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic models`."""
    parser = commands.add_parser(
        "models",
        help="fetch and list frozen models",
        description="List and fetch frozen models. The models of this machine are in $FEDMOSAIC_MODELS, and some come "
        "with the project. A run never downloads a model; only this command does.",
        epilog="example: fedmosaic models fetch google-bert/bert-base-uncased",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser("fetch", help="fetch a model from the Hugging Face hub and pin its files")
    fetch.add_argument("name", metavar="OWNER/NAME", help="name of its repository")
    fetch.add_argument("--revision", metavar="REV", help="branch, tag or commit (default: the main branch)")
    fetch.set_defaults(command=_fetch)
    actions.add_parser("list", help="list the models of this machine").set_defaults(command=_list)


def _fetch(options: argparse.Namespace) -> None:
    from common.frozen.model_door import check
    from common.frozen.model_lock import Fetched, pin
    from common.frozen.pretrained import WANTED, check_name, fingerprint, models_folder

    check_name(options.name)
    place = models_folder()
    folder, partial = place / options.name, place / f".{options.name.replace('/', '--')}.partial"
    if folder.exists():
        raise ModelError(f"{folder} exists already: remove it to fetch the model again")
    revision = _download(options.name, options.revision, WANTED, partial)
    try:
        check(partial)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    pin(place, options.name, Fetched(revision=revision, fingerprint=fingerprint(folder)))
    print(f"{folder}: revision {revision}, pinned in {place / 'models.lock.json'}")


def _download(name: str, revision: str | None, patterns: list[str], target: Path) -> str:
    """Fetch the files of a repository. Returns their commit.

    Raises ModelError.
    """
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name, revision=revision)
        commit = str(found.sha)
        HfApi().snapshot_download(name, revision=commit, allow_patterns=patterns, local_dir=target)
    except Exception as error:  # only the library's code runs here, and a hub may answer anything
        shutil.rmtree(target, ignore_errors=True)
        said = str(error).splitlines() or [type(error).__name__]
        raise ModelError(f"{name} cannot be fetched: {said[0]}") from None
    shutil.rmtree(target / ".cache", ignore_errors=True)  # the hub client's own notes
    return commit


def _list(_: argparse.Namespace) -> None:
    from common.frozen.model_lock import read_lock
    from common.frozen.pretrained import embedded_models, fingerprint, models_folder

    lock = read_lock(models_folder())
    for place in filter(None, (models_folder(), embedded_models())):
        for folder in sorted(path.parent for path in place.glob("**/*.safetensors") if _is_top(path, place)):
            name = folder.relative_to(place).as_posix()
            fetched = lock.get(name) if place == models_folder() else None
            state = "not pinned" if fetched is None else f"revision {fetched.revision}"
            if fetched and fetched.fingerprint != fingerprint(folder):
                state += ", CHANGED since it was fetched"
            print(f"{name}: {folder}; {state}")


def _is_top(path: Path, place: Path) -> bool:
    """Whether a file of weights is in a model's top folder, not in the folder of a part of the model."""
    return len(path.relative_to(place).parts) <= 3 and not (path.parent.parent / "model_index.json").exists()
