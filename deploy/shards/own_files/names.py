"""Matching the names of files with the ids of a table."""

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from deploy.shards.own_files.kinds import without_ending


def keys_of(path: Path, folder: Path) -> list[str]:
    """The possible ids of a file, the most specific first: its path in the folder and its name, each with and without
    its ending. They are in Unicode form NFC, because not all systems write it."""
    place = path.relative_to(folder)
    names = (without_ending(place).as_posix(), place.as_posix(), without_ending(path).name, path.name)
    return list(dict.fromkeys(map(nfc, names)))


def nfc(name: str) -> str:
    """A name in Unicode form NFC, in which names are compared."""
    return unicodedata.normalize("NFC", name)


def look_alike(files: Iterable[str], ids: Collection[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a file's name and an id that differ only in leading zeros (which spreadsheets drop), case, blanks or
    punctuation."""
    loose: Mapping[str, str] = {_loose(name): name for name in ids}
    for name in files:
        if (meant := loose.get(_loose(name))) is not None and meant != name:
            yield name, meant


def _loose(name: str) -> str:
    signs = "".join(sign for sign in nfc(name).casefold() if sign.isalnum())
    return signs.lstrip("0") or "0"
