"""Folders of files and a table of labels, matched and written as a shard."""

import argparse
import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from common.config import RESERVED, ModalityName
from common.data.media import KNOWN, TEXTS
from common.data.shard import Example, Media, ShardInfo, ShardWriter, Written
from common.errors import ConfigError, ShardError
from common.files import is_free, whole_folder
from common.types import Modality
from deploy.certs import is_site_name
from deploy.progress import tracked

MADE: dict[str, Any] = {"by": "fedmosaic import"}


@dataclass(frozen=True)
class Found:
    """What is to become a shard. files: by modality and id; left_out: by the reason, what has no counterpart."""

    info: ShardInfo
    labels: Mapping[str, str]
    files: Mapping[Modality, Mapping[str, Path]]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def examples(self) -> list[Example]:
        """Those with a label and at least one file, in the order of the labels."""
        media = {
            name: {m: _media(files[name]) for m, files in self.files.items() if name in files} for name in self.labels
        }
        return [Example(name, label, media[name]) for name, label in self.labels.items() if media[name]]


def find(options: argparse.Namespace) -> Found:
    """What the options of `fedmosaic import` name, matched.

    Raises ConfigError with every mistake of options, labels and folders.
    """
    mistakes: list[str] = []
    classes = _classes(options.classes, mistakes)
    labels = read_labels(options.labels, classes, mistakes)
    folders = _folders(options.sources, mistakes)
    left_out: dict[str, list[str]] = {}
    found = {m: _files(m, folder, mistakes, left_out) for m, folder in folders.items()}
    files = {m: _labelled(m, found[m], folders[m], labels, left_out) for m in found}
    mistakes += _matchless(found, files, folders, labels)
    if lonely := [name for name in labels if not any(name in own for own in files.values())]:
        left_out["labels without a file"] = lonely
    site = options.site or options.out.resolve().name
    mistakes += _output_mistakes(options.out, site)
    if mistakes:
        raise ConfigError("import", mistakes)
    info = ShardInfo(
        site=site,
        classes=classes or sorted(set(labels.values())),
        modalities=sorted(files),
        licence=options.licence,
        made=MADE,
    )
    return Found(info, labels, files, left_out)


def _classes(given: str | None, mistakes: list[str]) -> list[str]:
    """The classes of the option; none where it is not given."""
    if given is None:
        return []
    names = [name.strip() for name in given.split(",")]
    if not all(names) or len(set(names)) != len(names):
        mistakes.append(f"--classes: {given!r} is not a list of different names, separated by commas")
    return names


def read_labels(path: Path, classes: Collection[str], mistakes: list[str]) -> dict[str, str]:
    """The label of each id in a CSV file with a header; other columns are not read. classes: the labels that may stand
    there, empty for any. What is wrong goes to `mistakes`, with its line."""
    labels: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, skipinitialspace=True, strict=True)
            if not {"id", "label"} <= set(rows.fieldnames or ()):
                mistakes.append(f"{path}: its first line must name the columns id and label, separated by a comma")
                return labels
            for row in rows:
                _add_label(labels, row, classes, f"{path}, line {rows.line_num}", mistakes)
    except OSError as error:
        mistakes.append(f"--labels: {path} cannot be read: {error.strerror}")
    except (UnicodeDecodeError, csv.Error) as error:
        mistakes.append(f"{path} is not a CSV file in UTF-8: {error}")
    else:
        mistakes += [] if labels else [f"{path} has no labels"]
    return labels


def _add_label(
    labels: dict[str, str], row: Mapping[str, str | None], classes: Collection[str], where: str, mistakes: list[str]
) -> None:
    name, label = ((row[column] or "").strip() for column in ("id", "label"))
    if not name or not label:
        mistakes.append(f"{where}: needs an id and a label")
    elif name in labels:
        mistakes.append(f"{where}: id {name!r} stands there twice")
    elif classes and label not in classes:
        mistakes.append(f"{where}: label {label!r} is not among --classes")
    else:
        labels[name] = label


def _folders(sources: Sequence[str], mistakes: list[str]) -> dict[Modality, Path]:
    folders: dict[Modality, Path] = {}
    for source in sources:
        modality, equals, folder = source.partition("=")
        if not equals or not folder:
            mistakes.append(f"{source!r} is not MODALITY=DIR")
        elif not _is_modality(modality):
            mistakes.append(f"{modality!r} cannot be a modality's name: small letters, digits and _, not id or label")
        elif modality in folders:
            mistakes.append(f"{modality} is given twice")
        elif not Path(folder).is_dir():
            mistakes.append(f"{modality}: there is no folder {folder}")
        else:
            folders[modality] = Path(folder)
    return folders


def _is_modality(name: str) -> bool:
    try:
        TypeAdapter(ModalityName).validate_python(name)
    except ValidationError:
        return False
    return name not in RESERVED


def _files(modality: Modality, folder: Path, mistakes: list[str], left_out: dict[str, list[str]]) -> dict[str, Path]:
    """The files of a folder by id. Hidden ones, which file managers make, are not looked at."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_file() or path.suffix.lower() not in KNOWN:
            left_out.setdefault(f"{modality}, not a file of a known kind", []).append(str(path))
        elif path.stem in files:
            mistakes.append(f"{modality}: {files[path.stem].name} and {path.name} in {folder} have the same id")
        else:
            files[path.stem] = path
    return files


def _labelled(
    modality: Modality,
    files: Mapping[str, Path],
    folder: Path,
    labels: Collection[str],
    left_out: dict[str, list[str]],
) -> dict[str, Path]:
    if without := [str(path) for name, path in files.items() if name not in labels]:
        left_out[f"{modality} without a label"] = without
    return {name: path for name, path in files.items() if name in labels}


def _matchless(
    found: Mapping[Modality, Mapping[str, Path]],
    files: Mapping[Modality, Mapping[str, Path]],
    folders: Mapping[Modality, Path],
    labels: Mapping[str, str],
) -> Iterable[str]:
    """A folder of which nothing can be used is a mistake."""
    for modality in files:
        if not found[modality]:
            yield f"{modality}: no file in {folders[modality]} has a known ending: {', '.join(sorted(KNOWN))}"
        elif labels and not files[modality]:
            file, name = next(iter(found[modality].values())).name, next(iter(labels))
            yield f"{modality}: no file in {folders[modality]} is called as an id is: {file}, but ids are like {name!r}"


def _output_mistakes(out: Path, site: str) -> Iterable[str]:
    if not is_free(out):
        yield f"--out: {out} exists and is not empty"
    if not is_site_name(site):
        yield f"{site!r} cannot be a site's name: give another one with --site, of letters, digits, '.', '_' and '-'"


def write(found: Found, out: Path) -> Written:
    """Write the shard; its folder appears whole or not at all.

    Raises ShardError.
    """
    try:
        with whole_folder(out) as unfinished:
            written = ShardWriter(unfinished, found.info).write(tracked(found.examples(), "copying"))
            for modality in written.unreadable.keys() - written.values.keys():
                raise ShardError(f"no {modality} file can be read; the first: {written.reasons[modality]}")
    except OSError as error:
        raise ShardError(f"shard {out.resolve()} cannot be written: {error.strerror}") from None
    return written


def _media(path: Path) -> Media:
    if path.suffix.lower() in TEXTS:
        return Media(partial(_text, path))
    return Media(path.read_bytes, path.suffix.lower())


def _text(path: Path) -> bytes:
    """Raises ValueError."""
    try:
        return path.read_text(encoding="utf-8-sig").strip().encode()
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not UTF-8 text") from None
