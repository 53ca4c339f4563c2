"""A shard: the folder in which one site's examples lie, and the boundary between its files and the system.

    shard/
      metadata.jsonl   one line an example: {"id": "7", "label": "cat", "image_file_name": "image/7.png", "text": "..."}
      shard.json       {"site": ..., "classes": [...], "modalities": [...], "licence": ..., "made": {...}}
      image/ audio/    the files

The value of modality m stands under "m_file_name" (a file of the shard) or, for text, under "m" itself. A missing key
is a missing modality. The names follow the folder-with-metadata convention of Hugging Face `datasets`.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from common.component import Options
from common.errors import ShardError
from common.types import Modality

log = logging.getLogger(__name__)

FILE_KEY = "_file_name"
MAX_LISTED = 10
"""How many faults of a file an error message lists unless asked for more."""


class ShardInfo(Options):
    """What shard.json says."""

    site: str
    """The site's name."""
    classes: list[str]
    """The class names in the order of their indices, the same at every site."""
    modalities: list[Modality]
    """Those the site holds at all."""
    licence: str = ""
    """Of the examples."""
    kinds: dict[str, str] = Field(default_factory=dict)
    """What a class is a kind of, e.g. {"cardinal": "bird"}, for the prompts of completion; may lack classes."""
    rates: dict[Modality, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Of arrays, which do not say it themselves: samples (of signals) or frames (of videos) per second."""
    made: dict[str, Any] = Field(default_factory=dict)
    """How the shard was made (data set, partition, seed, missing scenario); free form."""


@dataclass(frozen=True)
class Media:
    """One modality of one example on its way into a shard: a text, or a file given by its suffix and its bytes.

    read: raises ValueError or OSError when the source cannot be read.
    """

    read: Callable[[], bytes]
    suffix: str = ""

    @staticmethod
    def text(value: str) -> "Media":
        """A text, kept in metadata.jsonl itself."""
        return Media(value.encode)


@dataclass(frozen=True)
class Example:
    """One example of a data set.

    group: the natural owner (speaker, writer, brand), "" when there is none.
    """

    id: str
    label: str
    media: Mapping[Modality, Media]
    group: str = ""


@dataclass(frozen=True)
class Record:
    """One line of metadata.jsonl: where each modality's value is."""

    id: str
    label: str
    texts: Mapping[Modality, str] = field(default_factory=dict)
    files: Mapping[Modality, Path] = field(default_factory=dict)

    def has(self, modality: Modality) -> bool:
        """Whether the modality is there, readable or not."""
        return modality in self.texts or modality in self.files

    def value(self, modality: Modality) -> str | Path:
        """The text itself or the file of a modality that is there."""
        return self.texts[modality] if modality in self.texts else self.files[modality]

    def only(self, modalities: Collection[Modality]) -> "Record":
        """The record without the values of other modalities."""
        texts = {m: text for m, text in self.texts.items() if m in modalities}
        return Record(self.id, self.label, texts, {m: path for m, path in self.files.items() if m in modalities})


@dataclass
class Written:
    """Values by modality that went into a shard, and those whose source could not be read, with the first reason."""

    values: Counter[Modality] = field(default_factory=Counter)
    unreadable: Counter[Modality] = field(default_factory=Counter)
    reasons: dict[Modality, str] = field(default_factory=dict)

    def add(self, other: "Written") -> None:
        """Count another shard in."""
        self.values += other.values
        self.unreadable += other.unreadable
        self.reasons = other.reasons | self.reasons


class ShardWriter:
    """Writes a shard; the same examples give the same bytes.

    Raises ShardError when the folder exists and is not empty.
    """

    def __init__(self, folder: Path, info: ShardInfo) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise ShardError(f"shard {folder}: the folder exists and is not empty")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.info = info

    def write(self, examples: Iterable[Example]) -> Written:
        """Write the files, the metadata and shard.json.

        A value whose source cannot be read is left out, logged, and counted in shard.json; an example without any
        readable value is left out.
        """
        written = Written()
        with (self.folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
            for example in examples:
                if values := self._values(example, written):
                    line = {"id": example.id, "label": example.label, **values}
                    lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        info = self.info
        if written.unreadable:
            made = {**info.made, "unreadable": dict(sorted(written.unreadable.items()))}
            info = info.model_copy(update={"made": made})
        text = json.dumps(info.model_dump(), ensure_ascii=False, indent=1)
        (self.folder / "shard.json").write_text(text + "\n", encoding="utf-8")
        return written

    def _values(self, example: Example, written: Written) -> dict[str, str]:
        """The keys of the modalities in a line of the metadata, their files written."""
        values = {}
        for modality, media in sorted(example.media.items()):
            try:
                content = media.read()
            except (OSError, ValueError) as error:
                log.warning("%s of example %s is left out: %s", modality, example.id, error)
                written.unreadable[modality] += 1
                written.reasons.setdefault(modality, str(error))
                continue
            written.values[modality] += 1
            if not media.suffix:
                values[modality] = content.decode()
                continue
            name = f"{modality}/{example.id}{media.suffix}"
            target = self.folder / name
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)
            values[modality + FILE_KEY] = name
        return values


@dataclass(frozen=True)
class Shard:
    """A shard on disk: its info and its records. Opening it reads the metadata, none of the files."""

    folder: Path
    info: ShardInfo
    records: list[Record]

    @classmethod
    def open(cls, folder: Path, listed: int | None = MAX_LISTED) -> "Shard":
        """Read shard.json and metadata.jsonl. listed: how many mistakes of the metadata an error names, None for all.

        Raises ShardError naming the shard: absent or malformed files, unknown labels, repeated ids, file names that
        leave the shard.
        """
        info = _read_info(folder)
        faults: list[str] = []
        records = list(_read_records(folder, info, faults))
        if faults:
            named = faults[:listed]
            lines = "".join(f"\n  - {fault}" for fault in named)
            more = f"\n  ... and {len(faults) - len(named)} more" if len(faults) > len(named) else ""
            raise ShardError(f"shard {folder}: metadata.jsonl has mistakes{lines}{more}")
        if not records:
            raise ShardError(f"shard {folder}: metadata.jsonl has no examples")
        return cls(folder, info, records)

    def only(self, modalities: Collection[Modality]) -> "Shard":
        """The shard as if it had no other modalities."""
        info = self.info.model_copy(update={"modalities": [m for m in self.info.modalities if m in modalities]})
        return Shard(self.folder, info, [record.only(modalities) for record in self.records])

    def label_index(self, record: Record) -> int:
        """The class index of a record."""
        return self.info.classes.index(record.label)


def _read_info(folder: Path) -> ShardInfo:
    if not folder.is_dir():
        raise ShardError(f"shard {folder}: there is no such folder")
    path = part(folder, "shard.json")
    try:
        info = ShardInfo.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ShardError(f"shard {folder}: shard.json cannot be read: {error.strerror}") from None
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, finding['loc'])) or 'file'}: {finding['msg']}" for finding in error.errors()
        )
        raise ShardError(f"shard {folder}: shard.json is not valid: {found}") from None
    for name, values in (("classes", info.classes), ("modalities", info.modalities)):
        if not values or len(set(values)) != len(values):
            raise ShardError(f"shard {folder}: shard.json: {name} must be a list of different names")
    return info


def _read_records(folder: Path, info: ShardInfo, faults: list[str]) -> Iterator[Record]:
    try:
        text = part(folder, "metadata.jsonl").read_text(encoding="utf-8")
    except OSError as error:
        raise ShardError(f"shard {folder}: metadata.jsonl cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ShardError(f"shard {folder}: metadata.jsonl is not UTF-8 text") from None
    root, classes, seen = folder.resolve(), set(info.classes), set[str]()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = _parse(json.loads(line), root, info)
            if record.label not in classes:
                raise ValueError(f"label {record.label!r} is not among the classes of shard.json")
            if record.id in seen:
                raise ValueError(f"id {record.id!r} stands there twice")
        except (ValueError, RecursionError) as error:
            reason = "not JSON" if isinstance(error, json.JSONDecodeError | RecursionError) else str(error)
            faults.append(f"line {number}: {reason}")
            continue
        seen.add(record.id)
        yield record


def _parse(line: Any, root: Path, info: ShardInfo) -> Record:
    if not isinstance(line, dict) or not all(isinstance(line.get(key), str) for key in ("id", "label")):
        raise ValueError('needs "id" and "label", both text')
    line["id"].encode()  # raises ValueError for half a surrogate pair, which JSON can write and no file can hold
    texts, files = {}, {}
    for modality in info.modalities:
        if (name := line.get(modality + FILE_KEY)) is not None:
            files[modality] = inside(root, name)
        elif (text := line.get(modality)) is not None:
            if not isinstance(text, str):
                raise ValueError(f"{modality!r} must be text")
            text.encode()
            texts[modality] = text
    return Record(line["id"], line["label"], texts, files)


def part(folder: Path, name: str) -> Path:
    """A file or folder that belongs to every shard, in the shard folder.

    Raises ShardError when a link leads out of it.
    """
    try:
        return inside(folder.resolve(), name)
    except ValueError as error:
        raise ShardError(f"shard {folder}: {error}") from None


def inside(root: Path, name: object) -> Path:
    """The file of a name, which must stay in a resolved folder, links followed.

    Raises ValueError.
    """
    if not isinstance(name, str) or "\0" in name:
        raise ValueError(f"file name {name!r} is not a file name")
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ValueError(f"file name {name!r} is not a file name: {error}") from None
    if not path.is_relative_to(root):
        raise ValueError(f"file name {name!r} leaves the folder")
    return path
