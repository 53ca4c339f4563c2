"""How the names of files and the ids of a table find each other."""

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path


def keys_of(path: Path, folder: Path) -> list[str]:
    """What a table may call a file of a folder, the most telling first: its place in the folder with and without its
    ending, its name with and without its ending; in Unicode's form NFC, which not all systems write."""
    place = path.relative_to(folder)
    names = (place.with_suffix("").as_posix(), place.as_posix(), path.stem, path.name)
    return list(dict.fromkeys(map(nfc, names)))


def nfc(name: str) -> str:
    """A name in the one of Unicode's forms that names are compared in."""
    return unicodedata.normalize("NFC", name)


def look_alike(files: Iterable[str], ids: Collection[str]) -> Iterator[tuple[str, str]]:
    """Names of files and ids that are not the same and look as if they were meant to be: they differ in leading zeros,
    which spreadsheets drop, in case, or in blanks and signs."""
    loose: Mapping[str, str] = {_loose(name): name for name in ids}
    for name in files:
        if (meant := loose.get(_loose(name))) is not None and meant != name:
            yield name, meant


def _loose(name: str) -> str:
    signs = "".join(sign for sign in nfc(name).casefold() if sign.isalnum())
    return signs.lstrip("0") or "0"
