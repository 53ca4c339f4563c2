"""`fedmosaic models`: the frozen models of this machine, and the one way to fetch another."""

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
        description="The frozen models of this machine: those in $FEDMOSAIC_MODELS and those that come with the "
        "project. No run fetches any; this command does.",
        epilog="example: fedmosaic models fetch google-bert/bert-base-uncased",
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser("fetch", help="fetch a model from the Hugging Face hub and pin what was fetched")
    fetch.add_argument("name", metavar="OWNER/NAME", help="of its repository")
    fetch.add_argument("--revision", metavar="REV", help="branch, tag or commit (default: the main branch as it is)")
    fetch.set_defaults(command=_fetch)
    actions.add_parser("list", help="say which models are here").set_defaults(command=_list)


def _fetch(options: argparse.Namespace) -> None:
    from common.frozen.model_door import check
    from common.frozen.model_lock import Fetched, pin
    from common.frozen.pretrained import WANTED, check_name, fingerprint, models_folder

    check_name(options.name)
    place = models_folder()
    folder, partial = place / options.name, place / f".{options.name.replace('/', '--')}.partial"
    if folder.exists():
        raise ModelError(f"{folder} is there already: remove it to fetch the model again")
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
    """Fetch the files of a repository; the commit that they are of.

    Raises ModelError.
    """
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name, revision=revision)
        commit = str(found.sha)
        HfApi().snapshot_download(name, revision=commit, allow_patterns=patterns, local_dir=target)
    except Exception as error:  # nothing but the library's code runs here, and a hub may answer anything
        shutil.rmtree(target, ignore_errors=True)
        said = str(error).splitlines() or [type(error).__name__]
        raise ModelError(f"{name} cannot be fetched: {said[0]}") from None
    shutil.rmtree(target / ".cache", ignore_errors=True)  # the hub's own notes
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
    """Whether a file of weights is of a model's own folder, and not of a part of it."""
    return len(path.relative_to(place).parts) <= 3 and not (path.parent.parent / "model_index.json").exists()
