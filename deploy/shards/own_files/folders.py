"""The files of a modality in a folder: directly, in subfolders, or in one subfolder per class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.modality import Modality
from common.tasks.labels import Label
from deploy.shards.own_files.kinds import is_directory_file, kind, without_ending
from deploy.shards.own_files.names import keys_of, nfc

LeftOut = dict[str, list[str]]
"""Names of unused files, by reason."""


@dataclass
class Files:
    """The files of one modality. by_id: the files that belong to an example. found: the number of files of a known
    kind."""

    modality: Modality
    by_id: dict[str, Path] = field(default_factory=dict)
    found: int = 0
    source: str = ""

    def put(self, name: str, path: Path, mistakes: list[str]) -> None:
        """Add the file of an example. A second file for the same example is a mistake."""
        if (other := self.by_id.setdefault(name, path)) != path:
            mistakes.append(f"{self.modality}: {other.name} and {path.name} in {path.parent} have the same id {name!r}")


def known_files(modality: Modality, folder: Path, recursive: bool, left_out: LeftOut) -> list[Path]:
    """The files of a known kind, sorted. Other files are added to `left_out`. Hidden files, which file managers make,
    are ignored."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and recursive:
            found += known_files(modality, path, recursive, left_out)
        elif path.is_dir() and (inside := _count_inside(path)):
            note = f"{modality}, subfolders are not searched (add --recursive)"
            left_out.setdefault(note, []).append(f"{path} ({inside} file{'s' * (inside != 1)})")
        elif path.is_file() and is_directory_file(path):
            left_out.setdefault(f"{modality}, a list of DICOM files without pixels", []).append(str(path))
        elif path.is_file() and kind(path):
            found.append(path)
        else:
            left_out.setdefault(f"{modality}, not a file of a known kind", []).append(str(path))
    return found


def by_table(
    modality: Modality, folder: Path, recursive: bool, ids: Mapping[str, str], mistakes: list[str], left_out: LeftOut
) -> Files:
    """The files with an id in a table. ids: the table's ids, by their Unicode form NFC."""
    paths = known_files(modality, folder, recursive, left_out)
    files = Files(modality, found=len(paths), source=str(folder))
    for path in paths:
        named = next((ids[key] for key in keys_of(path, folder) if key in ids), None)
        if named is None:
            left_out.setdefault(f"{modality} without a label", []).append(str(path))
        else:
            files.put(named, path, mistakes)
    return files


def by_class(
    modality: Modality, folder: Path, labels: dict[str, Label], mistakes: list[str], left_out: LeftOut
) -> Files:
    """The files in one subfolder per class. The subfolder's name is the class and the first part of the ids. The labels
    are added to `labels`."""
    files = Files(modality, source=str(folder))
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.is_dir():
            left_out.setdefault(f"{modality}, not in the folder of a class", []).append(str(path))
            continue
        for inside in known_files(modality, path, True, left_out):
            name = _place(inside, folder)
            labels[name] = nfc(path.name)
            files.put(name, inside, mistakes)
            files.found += 1
    return files


def unlabelled(modality: Modality, folder: Path, recursive: bool, mistakes: list[str], left_out: LeftOut) -> Files:
    """All files, by their paths in the folder."""
    files = Files(modality, source=str(folder))
    for path in known_files(modality, folder, recursive, left_out):
        files.put(_place(path, folder), path, mistakes)
        files.found += 1
    return files


def has_class_folders(folders: Sequence[Path]) -> bool:
    """Whether every folder has subfolders with files."""
    return all(any(path.is_dir() and _count_inside(path) for path in folder.iterdir()) for folder in folders)


def _place(path: Path, folder: Path) -> str:
    return nfc(without_ending(path.relative_to(folder)).as_posix())


def _count_inside(folder: Path) -> int:
    return sum(path.is_file() and bool(kind(path)) for path in folder.rglob("*") if not path.name.startswith("."))
