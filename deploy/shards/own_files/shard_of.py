"""Matching a site's own files with its tables, and writing them as a shard."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from common.config.experiment import RESERVED, ModalityName
from common.data.shard import Example, Media, ShardInfo, ShardWriter, Written
from common.errors import ConfigError, ShardError
from common.files import is_free, whole_folder
from common.modality import Modality
from common.site_name import is_site_name
from common.tasks.labels import NO_LABEL, Label, in_words
from deploy.progress import tracked
from deploy.shards.own_files import folders
from deploy.shards.own_files.conversion import Conversion
from deploy.shards.own_files.folders import Files, LeftOut
from deploy.shards.own_files.kinds import ENDINGS, kind, lacking, without_ending
from deploy.shards.own_files.labels import LabelReader, names_of, option_mistakes
from deploy.shards.own_files.names import look_alike, nfc
from deploy.shards.own_files.records import Records, hints_of, label_columns, read_records, suspects
from deploy.shards.own_files.slices import choices_of
from deploy.shards.own_files.table import Format, Table, read_table
from deploy.shards.own_files.windows import windows_of
from server.sites.attention import alike

MADE: dict[str, Any] = {"by": "fedmosaic import"}
SHOWN = 3
"""The maximum number of pairs of similar names in the output."""


@dataclass
class Found:
    """The content of a new shard.

    labels: by id; NO_LABEL without labels. files, texts, records: by modality and id. said: notes about the input and
    its interpretation. left_out: the unused files and ids by reason. conversion: how files become values.
    """

    labels: dict[str, Label] = field(default_factory=dict)
    files: list[Files] = field(default_factory=list)
    texts: dict[Modality, dict[str, str]] = field(default_factory=dict)
    records: list[Records] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=dict)
    conversion: Conversion = field(default_factory=Conversion)
    info: ShardInfo = field(init=False)

    @property
    def modalities(self) -> list[Modality]:
        """The modalities of files, texts and tables, sorted."""
        return sorted({*(files.modality for files in self.files), *(one.modality for one in self.records), *self.texts})

    def has(self, name: str) -> bool:
        """Whether an example has any value."""
        values: list[Mapping[str, Any]] = [files.by_id for files in self.files]
        values += [*self.texts.values(), *(one.rows for one in self.records)]
        return any(name in own for own in values)

    def examples(self) -> list[Example]:
        """The examples with at least one value, in the order of the labels."""
        return [Example(name, label, self._media(name)) for name, label in self.labels.items() if self.has(name)]

    def _media(self, name: str) -> dict[Modality, Media]:
        media = {
            files.modality: self.conversion.media(files.modality, name, files.by_id[name])
            for files in self.files
            if name in files.by_id
        }
        media |= {one.modality: Media.row(one.rows[name]) for one in self.records if name in one.rows}
        return media | {m: Media.text(own[name]) for m, own in self.texts.items() if name in own}


def find(options: argparse.Namespace) -> Found:
    """The matched files and labels that the options of `fedmosaic import` name.

    Raises ConfigError with every mistake in the options, tables and folders.
    """
    mistakes: list[str] = []
    found = Found()
    sources, tables = _sources(options.sources, mistakes)
    file_columns = _columns("--file-columns", options.file_columns, [*sources, *tables], mistakes)
    text_columns = _columns("--text-columns", options.text_columns, [*sources, *tables, *file_columns], mistakes)
    classes = _classes(options.classes, mistakes)
    mistakes += option_mistakes(options, classes)
    with_files = [*sources, *file_columns]
    rates = _rates(options.rate, with_files, mistakes)
    found.conversion.windows = windows_of(_pairs("--window", options.window, mistakes), with_files, mistakes)
    found.conversion.choices = choices_of(_pairs("--volume", options.volume, mistakes), with_files, mistakes)
    mistakes += (wrong := list(_layout_mistakes(options, sources, tables, file_columns, text_columns)))
    found.records = _records(options, tables, mistakes)
    if options.labels:
        _from_table(options, found, sources, file_columns, text_columns, classes, mistakes)
    elif (sources or tables) and not wrong:
        _from_folders(options, found, sources, mistakes)
    site = options.site or options.out.resolve().name
    mistakes += _output_mistakes(options.out, site)
    mistakes += lacking(path for files in found.files for path in files.by_id.values())
    if mistakes:
        raise ConfigError("import", mistakes)
    names = names_of(options, classes, found.labels.values())
    found.said += [
        f"{one.modality}: {note}" for one in found.records for note in [*one.said, *suspects(one, found.labels)]
    ]
    found.said += [
        f"classes {said} differ only in case, blanks or accents: are they the same class?" for said in alike(names)
    ]
    found.info = ShardInfo(
        site=site, task=options.task, classes=names, modalities=found.modalities, licence=options.licence,
        rates=rates, made=MADE,
    )  # fmt: skip
    return found


def write(found: Found, out: Path) -> Written:
    """Write the shard. Its folder appears complete or not at all. Files that cannot be decoded are left out.

    Raises ShardError.
    """
    try:
        with whole_folder(out) as unfinished:
            writer = ShardWriter(unfinished, found.info, {one.modality: one.columns for one in found.records})
            written = writer.write(_read(found, writer))
            for modality in written.unreadable.keys() - written.values.keys():
                raise ShardError(f"no {modality} file can be read; the first: {written.reasons[modality][0]}")
    except OSError as error:
        raise ShardError(f"shard {out.resolve()} cannot be written: {error.strerror}") from None
    return written


def _read(found: Found, writer: ShardWriter) -> Iterable[Example]:
    """The examples. After the last one, the counts of DICOM tags are added to shard.json, which is written last."""
    yield from tracked(found.examples(), "reading and copying")
    made = {**found.info.made, **found.conversion.made()}
    writer.info = found.info.model_copy(update={"made": made})


def _from_table(
    options: argparse.Namespace,
    found: Found,
    sources: Mapping[Modality, Path],
    file_columns: Mapping[Modality, str],
    text_columns: Mapping[Modality, str],
    classes: Sequence[str],
    mistakes: list[str],
) -> None:
    """Add the labels, files and texts of the table."""
    others = [one for one in found.records if one.path.resolve() != options.labels.resolve()]
    wanted = [options.id_column] if sources or others else []
    wanted += [] if options.unlabelled else label_columns(options)
    wanted += [*file_columns.values(), *text_columns.values()]
    form = Format(options.encoding, options.separator)
    optional = [] if wanted[:1] == [options.id_column] else [options.id_column]
    table = read_table(options.labels, wanted, form, mistakes, optional)
    if table is None:
        return
    found.said.append("; ".join([f"{options.labels}: {len(table.rows)} rows", *table.said]))
    rows = _labelled(table, options, found, classes, mistakes)
    ids = {nfc(name): name for name in found.labels}
    for modality, folder in sources.items():
        found.files.append(folders.by_table(modality, folder, options.recursive, ids, mistakes, found.left_out))
    for modality, column in file_columns.items():
        found.files.append(_named_files(modality, column, table, rows, found.left_out))
    for modality, column in text_columns.items():
        texts = {name: table.cell(row, column) for name, row in rows.items()}
        found.texts[modality] = {name: text for name, text in texts.items() if text}
        if empty := len(texts) - len(found.texts[modality]):
            found.said.append(f"{modality}: {empty} of {len(texts)} cells of column {column} are empty")
    for one in found.records:
        _match(one, ids, found.left_out, mistakes)
    mistakes += _matchless(found, table)
    if lonely := [name for name in found.labels if not found.has(name)]:
        found.left_out["labels without a file"] = lonely
    found.said += _near_misses(found)


def _labelled(
    table: Table, options: argparse.Namespace, found: Found, classes: Sequence[str], mistakes: list[str]
) -> dict[str, Sequence[str]]:
    """The rows by id, or by number if the table has no column of ids. The labels are added to `found`."""
    rows, seen = dict[str, Sequence[str]](), set[str]()
    reader, before = LabelReader(table, options, classes, found.left_out), len(mistakes)
    for number, (line, row) in enumerate(table.rows, start=1):
        name = table.cell(row, options.id_column) if options.id_column in table.columns else str(number)
        try:
            label = reader.read(name, line, row)
            if not name:
                raise ValueError("needs an id and a label")
            if nfc(name) in seen:
                raise ValueError(f"id {name!r} appears twice")
        except ValueError as error:
            mistakes.append(f"{table.path}, line {line}: {error}")
            continue
        seen.add(nfc(name))
        if label is not None:
            rows[name], found.labels[name] = row, label
    mistakes += reader.mistakes()
    if not table.rows:
        mistakes.append(f"{table.path} has no rows below the header")
    elif not rows and len(mistakes) == before:
        mistakes.append(f"{table.path}: --blank and --uncertain leave out every row")
    elif not options.unlabelled and len(mistakes) == before and not names_of(options, classes, found.labels.values()):
        mistakes.append(f"{table.path}: no row has a label")
    return rows


def _named_files(
    modality: Modality, column: str, table: Table, rows: Mapping[str, Sequence[str]], left_out: LeftOut
) -> Files:
    """The files whose paths, relative to the table's folder, are in a column of the table."""
    files = Files(modality, source=f"column {column}")
    for name, row in rows.items():
        if not (cell := table.cell(row, column)):
            continue
        files.found += 1
        path = table.path.parent / cell
        if not path.is_file():
            left_out.setdefault(f"{modality}, there is no such file", []).append(cell)
        elif not kind(path):
            left_out.setdefault(f"{modality}, not a file of a known kind", []).append(cell)
        else:
            files.by_id[name] = path
    return files


def _records(options: argparse.Namespace, tables: Mapping[Modality, Path], mistakes: list[str]) -> list[Records]:
    """The tables that are the values of modalities."""
    hints = hints_of(options, mistakes)
    read = [read_records(modality, path, options, hints, mistakes) for modality, path in tables.items()]
    mistakes += hints.mistakes() if all(read) else []
    return [one for one in read if one]


def _match(records: Records, ids: Mapping[str, str], left_out: LeftOut, mistakes: list[str]) -> None:
    """Keep the rows with an id in the table of labels. ids: the table's ids, by their Unicode form NFC."""
    unmatched = [name for name in records.rows if nfc(name) not in ids]
    if unmatched:
        left_out[f"{records.modality} without a label"] = unmatched
        if ids and len(unmatched) == len(records.rows):
            what = f"a row is {unmatched[0]!r}, a label is {next(iter(ids.values()))!r}"
            mistakes.append(f"{records.modality}: no row of {records.path} has an id with a label: {what}")
    records.rows = {ids[nfc(name)]: cells for name, cells in records.rows.items() if nfc(name) in ids}


def _from_folders(
    options: argparse.Namespace, found: Found, sources: Mapping[Modality, Path], mistakes: list[str]
) -> None:
    """Labels from the names of folders, or none."""
    for modality, folder in sources.items():
        if options.unlabelled:
            files = folders.unlabelled(modality, folder, options.recursive, mistakes, found.left_out)
            found.labels |= dict.fromkeys(files.by_id, NO_LABEL)
        else:
            files = folders.by_class(modality, folder, found.labels, mistakes, found.left_out)
        found.files.append(files)
        if not files.found:
            known = ", ".join(sorted(ENDINGS))
            where = folder if options.unlabelled else f"the class folders in {folder}"
            mistakes.append(f"{modality}: no file in {where} has a known ending: {known}")
    for one in found.records:
        found.labels |= {name: found.labels.get(name, NO_LABEL) for name in one.rows}
    if not options.unlabelled and found.labels:
        names = sorted({in_words(label) for label in found.labels.values()})
        found.said.append(f"the labels are the names of the folders: {', '.join(names)}")


def _near_misses(found: Found) -> Iterable[str]:
    """Sentences about files and ids without a counterpart whose names are similar."""
    lonely = set(found.left_out.get("labels without a file", ()))
    for files in found.files:
        free = [without_ending(Path(path)).name for path in found.left_out.get(f"{files.modality} without a label", ())]
        ids = [name for name in found.labels if name not in files.by_id]
        pairs = list(look_alike(free, ids))
        for name, meant in pairs[:SHOWN]:
            zeros = " (did a spreadsheet drop leading zeros?)" if name.lstrip("0") == meant.lstrip("0") else ""
            yield f"{files.modality}: the file {name} and the id {meant} are similar, but not the same{zeros}"
        if len(pairs) > SHOWN:
            yield f"{files.modality}: {len(pairs) - SHOWN} more pairs are similar"
    if lonely and len(lonely) == len(found.labels):
        yield "no id has a file"


def _matchless(found: Found, table: Table) -> Iterable[str]:
    """Mistakes for modalities without a usable value."""
    for files in found.files:
        if not files.found:
            yield f"{files.modality}: no file in {files.source} has a known ending: {', '.join(sorted(ENDINGS))}"
        elif found.labels and not files.by_id:
            yield f"{files.modality}: {_why_matchless(files, found, table)}"
    for modality, own in found.texts.items():
        if found.labels and not own:
            yield f"{modality}: its column is empty"


def _why_matchless(files: Files, found: Found, table: Table) -> str:
    unmatched = found.left_out.get(f"{files.modality} without a label")
    if not unmatched:
        return f"no file in {files.source} of {table.path} can be used"
    file, name = Path(unmatched[0]).name, next(iter(found.labels))
    return f"no file in {files.source} has an id as its name: a file is {file!r}, an id is {name!r}"


def _layout_mistakes(
    options: argparse.Namespace,
    sources: Mapping[Modality, Path],
    tables: Mapping[Modality, Path],
    *columns: Mapping[Modality, str],
) -> Iterable[str]:
    """Mistakes in the combination of options."""
    if not options.sources and not any(columns):
        yield "nothing to import: name folders as MODALITY=DIR, or columns of the table with --file-columns"
    if any(columns) and not options.labels:
        yield "--file-columns and --text-columns need --labels TABLE"
    if tables and not options.labels and not options.unlabelled:
        named = " and ".join(tables)
        yield f"labels are missing: {named} needs --labels TABLE (it may be the same table), or --unlabelled"
    if options.labels or options.unlabelled or not sources or options.task != "single-label":
        return
    if not folders.has_class_folders(list(sources.values())):
        yield "labels are missing: use --labels TABLE, or one folder per class in every MODALITY=DIR, or --unlabelled"


def _classes(given: str | None, mistakes: list[str]) -> list[str]:
    """The classes of --classes, or an empty list without the option."""
    if given is None:
        return []
    names = [name.strip() for name in given.split(",")]
    if not all(names) or len(set(names)) != len(names):
        mistakes.append(f"--classes: {given!r} is not a list of different names, separated by commas")
    return names


def _pairs(option: str, given: str | None, mistakes: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in (given or "").split(",") if given else []:
        name, equals, value = part.strip().partition("=")
        if not equals or not value or name in pairs:
            mistakes.append(f"{option}: {part!r} is not MODALITY=..., or repeats a modality")
        else:
            pairs[name] = value.strip()
    return pairs


def _columns(option: str, given: str | None, taken: Iterable[Modality], mistakes: list[str]) -> dict[Modality, str]:
    columns = _pairs(option, given, mistakes)
    mistakes += [f"{option}: {_not_a_modality(name)}" for name in columns if not _is_modality(name)]
    mistakes += [f"{option}: {name} has another source already" for name in columns.keys() & set(taken)]
    return columns


def _rates(given: str | None, known: Sequence[Modality], mistakes: list[str]) -> dict[Modality, float]:
    rates = {}
    for name, value in _pairs("--rate", given, mistakes).items():
        try:
            rates[name] = float(value)
        except ValueError:
            rates[name] = 0.0
        if not 0 < rates[name] < float("inf"):
            mistakes.append(f"--rate: {value!r} is not a number of samples or frames per second")
        if name not in known:
            mistakes.append(f"--rate: {name} has no folder and no column of files")
    return rates


def _sources(sources: Sequence[str], mistakes: list[str]) -> tuple[dict[Modality, Path], dict[Modality, Path]]:
    """The folders and the tables of modalities."""
    found, tables = dict[Modality, Path](), dict[Modality, Path]()
    for source in sources:
        modality, equals, place = source.partition("=")
        if not equals or not place:
            mistakes.append(f"{source!r} is not MODALITY=DIR")
        elif not _is_modality(modality):
            mistakes.append(_not_a_modality(modality))
        elif modality in found or modality in tables:
            mistakes.append(f"{modality} has two folders: name one of them")
        elif Path(place).is_file():
            tables[modality] = Path(place)
        elif not Path(place).is_dir():
            mistakes.append(f"{modality}: there is no folder {place}")
        else:
            found[modality] = Path(place)
    return found, tables


def _is_modality(name: str) -> bool:
    try:
        TypeAdapter(ModalityName).validate_python(name)
    except ValidationError:
        return False
    return name not in RESERVED


def _not_a_modality(name: str) -> str:
    return f"{name!r} is not a valid name of a modality: use small letters, digits and _, but not id or label"


def _output_mistakes(out: Path, site: str) -> Iterable[str]:
    if not is_free(out):
        yield f"--out: {out} exists and is not empty"
    if not is_site_name(site):
        yield f"{site!r} is not a valid name of a site: set --site to a name of letters, digits, '.', '_' and '-'"
