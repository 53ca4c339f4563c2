"""The folders of the sites' shards in a folder of shards: any names, next to the server's shards `test` and `probe`."""

import re
from pathlib import Path

from common.errors import ShardError

TEST, PROBE = "test", "probe"
"""The folders of the server's test shard and probe set."""


def site_folders(shards: Path) -> list[Path]:
    """The subfolders that contain a shard of a site, in the order of their names. Numbers in names are compared by
    their value, so client-10 comes after client-9."""
    found = [info.parent for info in shards.glob("*/shard.json")]
    sites = [folder for folder in found if folder.name not in (TEST, PROBE) and not folder.name.startswith(".")]
    return sorted(sites, key=lambda folder: _in_order(folder.name))


def client_folders(shards: Path, clients: int) -> list[Path]:
    """The shards of the clients of an experiment.

    Raises ShardError when the folder does not have one shard per client.
    """
    folders = site_folders(shards)
    if len(folders) == clients:
        return folders
    names = ", ".join(folder.name for folder in folders) or "none"
    raise ShardError(
        f"{shards} has {len(folders)} shards of sites ({names}), and data.clients is {clients}: set data.clients to "
        "the number of sites, or choose another folder"
    )


def _in_order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
