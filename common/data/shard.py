"""A shard: the folder with one site's examples. This module checks all file names and file contents that it reads.

    shard/
      metadata.jsonl   one line per example: {"id": "7", "label": "cat", "image_file_name": "image/7.png", "text": ".."}
      shard.json       {"site": ..., "task": ..., "classes": [...], "modalities": [...], "licence": ..., "made": {...}}
      columns.json     the columns of tables, if there are any: {"vitals": {"age": {"type": "number", "unit": "years"}}}
      image/ audio/    the files

The value of modality m is under the key "m_file_name" (a file of the shard) or, for a text or a row of a table, under
the key "m". A missing key, null, NaN or a blank text means that the modality is missing, and so does a row whose cells
are all missing. A row with some missing cells is a value. A shard for prediction has no labels and may have no
classes. The labels of each task: `common/tasks/labels.py`. The names follow the folder-with-metadata convention of
Hugging Face `datasets`.
"""

import json
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field, TypeAdapter, ValidationError

from common.columns import Columns, cell_mistakes, name_mistakes
from common.config.component import Options
from common.config.task import TaskName
from common.errors import ShardError
from common.media.table_row import TableRow, is_absent, is_missing, table_row
from common.modality import Modality
from common.tasks.labels import NO_LABEL, Label, as_written, read_label

log = logging.getLogger(__name__)

FILE_KEY = "_file_name"
COLUMNS = "columns.json"
UNDESCRIBED = f"{COLUMNS} does not describe its columns"
LONGEST_NAME = 100
"""The maximum number of characters of a file name that is made from an id."""
MAX_LISTED = 10
"""The number of mistakes that an error message lists by default."""


class ShardInfo(Options):
    """The content of shard.json."""

    site: str
    """The site's name."""
    task: TaskName = "single-label"
    """The kind of labels: one class, any number of labels, or numbers."""
    classes: list[str]
    """The names of the classes in the order of their indices, of the labels, or of the targets of a regression. They
    are the same at every site."""
    modalities: list[Modality]
    """The modalities that at least some examples of the site have."""
    licence: str = ""
    """The licence of the examples."""
    kinds: dict[str, str] = Field(default_factory=dict)
    """The kind of thing that a class is, e.g. {"cardinal": "bird"}, for the prompts of completion. Classes may be
    absent."""
    rates: dict[Modality, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Samples per second of signals, or frames per second of videos. Needed for arrays, because array files do not
    contain their rate."""
    made: dict[str, Any] = Field(default_factory=dict)
    """How the shard was made (data set, partition, seed, missing scenario). The form is free."""


ROW = "{}"
"""The suffix of a row of a table, which is not a file."""


@dataclass(frozen=True)
class Media:
    """One modality of one example that is to be written into a shard: a text, a row of a table, or a file with a
    suffix.

    read: returns the bytes; raises ValueError or OSError when the source cannot be read.
    """

    read: Callable[[], bytes]
    suffix: str = ""

    @staticmethod
    def text(value: str) -> "Media":
        """A text, kept in metadata.jsonl itself."""
        return Media(value.encode)

    @staticmethod
    def row(cells: Mapping[str, Any]) -> "Media":
        """A row of a table, kept in metadata.jsonl itself."""
        return Media(json.dumps(dict(cells), ensure_ascii=False).encode, ROW)


@dataclass(frozen=True)
class Example:
    """One example of a data set.

    group: the natural owner (speaker, writer, brand), or "" if there is none.
    """

    id: str
    label: Label
    media: Mapping[Modality, Media]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One line of metadata.jsonl: the text, file or row of each modality. label: NO_LABEL in a shard without labels."""

    id: str
    label: Label
    texts: Mapping[Modality, str] = field(default_factory=dict)
    files: Mapping[Modality, Path] = field(default_factory=dict)
    rows: Mapping[Modality, TableRow] = field(default_factory=dict)

    def has(self, modality: Modality) -> bool:
        """Whether the example has the modality, readable or not."""
        return modality in self.texts or modality in self.files or modality in self.rows

    def value(self, modality: Modality) -> str | TableRow | Path:
        """The text, the row or the file of a modality that the example has."""
        if modality in self.rows:
            return self.rows[modality]
        return self.texts[modality] if modality in self.texts else self.files[modality]

    def only(self, modalities: Collection[Modality]) -> "Record":
        """The record without the values of other modalities."""
        texts = {m: text for m, text in self.texts.items() if m in modalities}
        files = {m: path for m, path in self.files.items() if m in modalities}
        return Record(self.id, self.label, texts, files, {m: row for m, row in self.rows.items() if m in modalities})


@dataclass
class Written:
    """Counts of the content of a written shard: examples, values by modality, and values whose source could not be
    read, with the reasons."""

    examples: int = 0
    values: Counter[Modality] = field(default_factory=Counter)
    unreadable: Counter[Modality] = field(default_factory=Counter)
    reasons: dict[Modality, list[str]] = field(default_factory=dict)

    def add(self, other: "Written") -> None:
        """Add the counts of another shard."""
        self.examples += other.examples
        self.values += other.values
        self.unreadable += other.unreadable
        for modality, reasons in other.reasons.items():
            self.reasons.setdefault(modality, []).extend(reasons)


class ShardWriter:
    """Writes a shard; the same examples give the same bytes. columns: the columns of tables, by modality.

    Raises ShardError when the folder exists and is not empty.
    """

    def __init__(self, folder: Path, info: ShardInfo, columns: Mapping[Modality, Columns] | None = None) -> None:
        if folder.exists() and any(folder.iterdir()):
            raise ShardError(f"shard {folder}: the folder exists and is not empty")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.info = info
        self.columns = columns or {}

    def write(self, examples: Iterable[Example]) -> Written:
        """Write the files, the metadata, shard.json and, for tables, columns.json.

        A value whose source cannot be read is left out, logged, and counted in shard.json. An example without a
        readable value is left out.
        """
        written = Written()
        with (self.folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
            for example in examples:
                if values := self._values(example, written):
                    written.examples += 1
                    label = {"label": as_written(example.label)} if example.label != NO_LABEL else {}
                    line = {"id": example.id, **label, **values}
                    lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        info = self.info
        if written.unreadable:
            made = {**info.made, "unreadable": dict(sorted(written.unreadable.items()))}
            info = info.model_copy(update={"made": made})
        text = json.dumps(info.model_dump(), ensure_ascii=False, indent=1)
        (self.folder / "shard.json").write_text(text + "\n", encoding="utf-8")
        if self.columns:
            told = {m: {n: c.model_dump(exclude_none=True) for n, c in own.items()} for m, own in self.columns.items()}
            text = json.dumps(told, ensure_ascii=False, indent=1)
            (self.folder / COLUMNS).write_text(text + "\n", encoding="utf-8")
        return written

    def _values(self, example: Example, written: Written) -> dict[str, Any]:
        """Write the files of an example. Returns the keys and values of its modalities for the line in the metadata."""
        values = dict[str, Any]()
        for modality, media in sorted(example.media.items()):
            try:
                content = media.read()
            except (OSError, ValueError) as error:
                log.warning("%s of example %s is left out: %s", modality, example.id, error)
                written.unreadable[modality] += 1
                written.reasons.setdefault(modality, []).append(str(error))
                continue
            written.values[modality] += 1
            if not media.suffix:
                values[modality] = content.decode()
                continue
            if media.suffix == ROW:
                values[modality] = json.loads(content)
                continue
            name = f"{modality}/{file_stem(example.id)}{media.suffix}"
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            values[modality + FILE_KEY] = name
        return values


@dataclass(frozen=True)
class Shard:
    """A shard on disk: its info and its records. Opening a shard reads the metadata, but not the examples' files.

    unread: unknown keys of metadata.jsonl with the number of lines that have them. blank: by modality, the number of
    empty texts and rows, which count as missing. columns: by modality, the columns of a table.
    """

    folder: Path
    info: ShardInfo
    records: list[Record]
    unread: Mapping[str, int] = field(default_factory=dict)
    blank: Mapping[Modality, int] = field(default_factory=dict)
    columns: Mapping[Modality, Columns] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path | str, listed: int | None = MAX_LISTED, labelled: bool = True) -> "Shard":
        """Read shard.json, columns.json and metadata.jsonl.

        listed: the number of mistakes in the metadata that an error lists, None for all. labelled: whether every
        example must have a label.

        Raises ShardError, which names the shard, for absent or malformed files, missing or unknown labels, repeated
        ids, and file names that lead out of the shard.
        """
        folder = Path(folder)
        info = _read_info(folder, labelled)
        columns = _read_columns(folder, info)
        faults: list[str] = []
        metadata = _Lines(folder.resolve(), info, labelled, columns)
        records = list(metadata.read(_text_of(folder, "metadata.jsonl"), faults))
        if faults:
            named = faults[:listed]
            lines = "".join(f"\n  - {fault}" for fault in named)
            more = f"\n  ... and {len(faults) - len(named)} more" if len(faults) > len(named) else ""
            raise ShardError(f"shard {folder}: metadata.jsonl has mistakes{lines}{more}")
        if not records:
            raise ShardError(f"shard {folder}: metadata.jsonl has no examples")
        return cls(folder, info, records, metadata.unread, metadata.blank, columns)

    def only(self, modalities: Collection[Modality]) -> "Shard":
        """The shard as if it had no other modalities."""
        info = self.info.model_copy(update={"modalities": [m for m in self.info.modalities if m in modalities]})
        columns = {m: own for m, own in self.columns.items() if m in modalities}
        return replace(self, info=info, records=[record.only(modalities) for record in self.records], columns=columns)

    def check_task(self, task: TaskName) -> None:
        """Raises ShardError when the labels are for another task."""
        if self.info.task != task:
            raise ShardError(
                f"shard {self.folder}: its labels are for task {self.info.task}, the experiment's task is {task}"
            )


def _read_info(folder: Path, labelled: bool) -> ShardInfo:
    if not folder.is_dir():
        raise ShardError(f"shard {folder}: there is no such folder")
    try:
        info = ShardInfo.model_validate_json(_text_of(folder, "shard.json"))
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(map(str, finding['loc'])) or 'file'}: {finding['msg']}" for finding in error.errors()
        )
        raise ShardError(f"shard {folder}: shard.json is not valid: {found}") from None
    for name, values in (("classes", info.classes), ("modalities", info.modalities)):
        if name == "classes" and not values and not labelled:
            continue
        if not values:
            hint = ": the shard is for prediction only" if name == "classes" else ""
            raise ShardError(f"shard {folder}: shard.json has no {name}{hint}")
        if len(set(values)) != len(values):
            raise ShardError(f"shard {folder}: shard.json: {name} must be a list of different names")
    return info


def _read_columns(folder: Path, info: ShardInfo) -> dict[Modality, Columns]:
    """The columns of the tables; empty if the shard has no columns.json.

    Raises ShardError with every mistake.
    """
    if not part(folder, COLUMNS).exists():
        return {}
    try:
        columns = TypeAdapter(dict[Modality, Columns]).validate_json(_text_of(folder, COLUMNS))
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors()]
    else:
        mistakes = [f"{m!r} is not a modality of shard.json" for m in columns if m not in info.modalities]
        mistakes += [f"{m} has no columns" for m, own in columns.items() if not own]
        mistakes += [f"{m}: {mistake}" for m, own in columns.items() for mistake in name_mistakes(own)]
    if mistakes:
        raise ShardError(f"shard {folder}: {COLUMNS} is not valid: {'; '.join(mistakes)}")
    return columns


def _text_of(folder: Path, name: str) -> str:
    """The text of a file in the shard folder, without the byte order mark that some editors write.

    Raises ShardError.
    """
    try:
        return part(folder, name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ShardError(f"shard {folder}: {name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ShardError(f"shard {folder}: {name} is not UTF-8 text") from None


class _Lines:
    """The lines of metadata.jsonl, checked one after the other."""

    def __init__(self, root: Path, info: ShardInfo, labelled: bool, columns: Mapping[Modality, Columns]) -> None:
        self.unread, self.blank = Counter[str](), Counter[Modality]()
        self._root, self._info, self._labelled, self._columns = root, info, labelled, columns
        self._classes, self._seen, self._told = set(info.classes), set[str](), set[str]()
        self._known = {"id", "label"} | {key for m in info.modalities for key in (m, m + FILE_KEY)}

    def read(self, text: str, faults: list[str]) -> Iterator[Record]:
        """The records. A message about each wrong line is appended to `faults`."""
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                yield self._record(json.loads(line))
            except (ValueError, RecursionError) as error:
                reason = "not JSON" if isinstance(error, json.JSONDecodeError | RecursionError) else str(error)
                if UNDESCRIBED not in reason or reason not in self._told:  # one mistake, not one per line
                    faults.append(f"line {number}: {reason}")
                self._told.add(reason)

    def _record(self, line: Any) -> Record:
        if not isinstance(line, dict) or not isinstance(line.get("id"), str):
            raise ValueError('the line needs "id" and "label", both as text')
        name, label = line["id"], self._label(line)
        name.encode()  # raises ValueError for half a surrogate pair, which JSON allows and UTF-8 does not
        texts, files, rows = {}, {}, {}
        for modality in self._info.modalities:
            given = line.get(modality)
            if not is_absent(file := line.get(modality + FILE_KEY)):
                files[modality] = inside(self._root, file)
            elif modality in self._columns and not is_absent(given):
                if (row := self._row(modality, given)).cells:
                    rows[modality] = row
                else:
                    self.blank[modality] += 1
            elif isinstance(given, str):
                given.encode()
                if given.strip():
                    texts[modality] = given
                else:
                    self.blank[modality] += 1
            elif not is_absent(given):
                raise ValueError(_not_a_text(modality, given))
        if name in self._seen:
            raise ValueError(f"id {name!r} is used by an earlier line; every id must be unique")
        self._seen.add(name)
        self.unread.update(key for key in line if key not in self._known)
        return Record(name, label, texts, files, rows)

    def _row(self, modality: Modality, given: Any) -> TableRow:
        """Raises ValueError with every mistake in the cells."""
        if is_missing(given):
            return TableRow({})
        if not isinstance(given, dict):
            raise ValueError(f"{modality!r} must be a row, because {COLUMNS} describes it as a table, not {given!r}")
        try:
            row = table_row(given)
            if mistakes := cell_mistakes(row.cells, self._columns[modality]):
                raise ValueError("; ".join(mistakes))
        except ValueError as error:
            raise ValueError(f"{modality}: {error}") from None
        return row

    def _label(self, line: dict[str, Any]) -> Label:
        label = line.get("label")
        if is_absent(label) and not self._labelled:
            return NO_LABEL
        return read_label(self._info.task, label, self._classes, self._labelled)


def _not_a_text(modality: Modality, given: object) -> str:
    if isinstance(given, dict):
        return (
            f"{modality!r} is a row of a table, but {UNDESCRIBED}. Write {COLUMNS}, or make the shard with `fedmosaic "
            "import`"
        )
    return f"{modality!r} must be text, not {given!r}; leave the key out if there is no text"


def file_stem(name: str) -> str:
    """The name of an example's files, without modality and ending. This is the id if the id is a valid path inside a
    folder, else an escaped form of it."""
    parts = name.split("/")
    plain = all(0 < len(part) <= LONGEST_NAME and part.strip(". ") == part for part in parts)
    if plain and name.isprintable() and not set(name) & set('\\:*?"<>|'):
        return name
    return quote(name, safe=" ").strip(". ")[:LONGEST_NAME] + f"-{zlib.crc32(name.encode()):08x}"


def part(folder: Path, name: str) -> Path:
    """The path of a file or folder in the shard folder.

    Raises ShardError when a link leads out of the shard folder.
    """
    try:
        return inside(folder.resolve(), name)
    except ValueError as error:
        raise ShardError(f"shard {folder}: {error}") from None


def inside(root: Path, name: object) -> Path:
    """The path of a file in a resolved folder, with links followed.

    Raises ValueError when the path is not inside the folder.
    """
    if not isinstance(name, str) or "\0" in name:
        raise ValueError(f"{name!r} is not a file name")
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise ValueError(f"{name!r} is not a file name: {error}") from None
    if not path.is_relative_to(root):
        raise ValueError(f"file name {name!r} leads out of the folder")
    return path
