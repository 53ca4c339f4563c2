"""A user's own shards as the data of a benchmark: one shard per site, and one test shard."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from common.data.shard import COLUMNS, Shard
from common.data.sites import TEST, site_folders
from common.errors import ConfigError, ShardError
from deploy.shards.classes import unlike_classes

MAKING = ("set", "partition", "missing", "limit", "test_limit")
"""Options of the section `data` that are used only when shards are made from a data set."""


def open_own_shards(folder: Path) -> list[Shard]:
    """The shards of the sites, followed by the test shard.

    Raises ConfigError with every mistake.
    """
    mistakes, shards = list[str](), list[Shard]()
    folders = site_folders(folder)
    if not folders:
        mistakes.append(f"{folder} contains no shards: make one per site with `fedmosaic import`")
    elif not (folder / TEST).is_dir():
        mistakes.append(
            f"{folder} has no test shard: import test files with `fedmosaic import --out {folder / TEST}`, or hold out "
            f"examples of the sites with `fedmosaic split {folder} --out DIR` and use DIR"
        )
    for place in [*folders, folder / TEST] if not mistakes else folders:
        try:
            shards.append(Shard.open(place))
        except ShardError as error:
            mistakes.append(str(error))
    mistakes += _differences(shards)
    if mistakes:
        raise ConfigError("shards", mistakes)
    return shards


def _differences(shards: list[Shard]) -> list[str]:
    """The reasons why shards do not belong to one federation."""
    if not shards:
        return []
    first, *others = shards
    mistakes = unlike_classes(shards)
    mistakes += [f"{shard.folder.name} is {shard.info.task}, but {first.folder.name} is {first.info.task}"
                 for shard in others if shard.info.task != first.info.task]  # fmt: skip
    named = Counter(shard.info.site for shard in shards if shard.folder.name != TEST)
    return mistakes + [f"{count} shards have the site name {name}" for name, count in named.items() if count > 1]


def making_options(changes: dict[str, Any]) -> list[str]:
    """The options for making shards among changed options by dotted name, e.g. {"data.limit": 100}."""
    whole = changes.get("data")
    inside = [f"data.{name}" for name in whole] if isinstance(whole, dict) else []
    named = [*inside, *(name for name in changes if name.startswith("data."))]
    return [name for name in named if name.split(".")[1] in MAKING]


def content_digest(folder: Path) -> str:
    """A digest of the shards' metadata and of the names, sizes and times of their files. Changed data have another
    digest. The probe set is left out, because a benchmark makes it when it is absent."""
    found = hashlib.sha256()
    for shard in (Shard.open(place) for place in [*site_folders(folder), folder / TEST]):
        found.update(f"{shard.folder.name}\n".encode())
        for name in ("shard.json", "metadata.jsonl", COLUMNS):
            path = shard.folder / name
            found.update(f"{name}\n".encode() + (path.read_bytes() if path.exists() else b""))
        root = shard.folder.resolve()
        for path in sorted({path for record in shard.records for path in record.files.values()}):
            about = path.stat() if path.exists() else None
            stamp = (about.st_size, about.st_mtime_ns) if about else None
            found.update(f"{path.relative_to(root)} {stamp}\n".encode())
    return found.hexdigest()
