"""`fedmosaic import`: make a shard from a site's own files."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.columns import Column, Columns
    from common.data.shard import Written
    from deploy.shards.own_files.shard_of import Found

NAMED = {"single-label": "classes", "multi-label": "labels", "regression": "targets"}
"""The names in `classes` of shard.json, by task."""
MAX_NAMED = 10
"""The maximum number of names of left-out files or ids in one line of output."""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic import`."""
    parser = commands.add_parser(
        "import",
        help="make a shard from your own files",
        description="Make a shard from folders of files, one folder per modality. The labels come from a table, which "
        "names each file with or without its ending. Without a table, the labels are the names of folders, one folder "
        "per class. The command accepts images, recordings, texts (.txt), arrays (.npy: signals, video frames), DICOM "
        "and NIfTI. It reads every file, copies the files, and stores texts in metadata.jsonl. DICOM and NIfTI become "
        "pictures without the data of the patient. The command leaves out files that have no counterpart or cannot be "
        "read, and prints their names.",
        epilog="example: fedmosaic import image=photographs --out shards/client-0     (one folder per class)     "
        "fedmosaic import image=pictures audio=sounds --labels labels.csv --out shards/client-0     "
        "fedmosaic import --labels notes.csv --file-columns image=photo --text-columns text=note --out shards/client-0 "
        "    fedmosaic import image=xrays --labels labels.csv --task multi-label --label-columns Edema,Pneumonia "
        "--uncertain absent --blank absent --out shards/client-0",
    )
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="MODALITY=DIR",
        help="a modality and the folder with its files, or a table, such as a .csv file, with its rows; all of them "
        "next to each other",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the shard")
    parser.add_argument("--site", metavar="NAME", help="the site's name (default: the name of the --out folder)")
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        help="the classes, labels or targets, in the same order at all sites (default: those found, sorted; with "
        "--label-columns, the columns)",
    )
    parser.add_argument("--unlabelled", action="store_true", help="make a shard without labels, for prediction only")
    parser.add_argument("--recursive", action="store_true", help="search subfolders of MODALITY=DIR too")
    parser.add_argument("--rate", metavar="MODALITY=N,...", help="samples or frames per second of .npy files")
    parser.add_argument(
        "--window",
        metavar="MODALITY=LOW:HIGH,...",
        help="the values that become black and white, for DICOM, NIfTI and grey pictures of 16 bits: Hounsfield units "
        "for computed tomography, or lung, bone, brain, soft-tissue (default: the window in a DICOM file, percentiles "
        "0.5 and 99.5 of a NIfTI volume, the full range of a picture)",
    )
    parser.add_argument(
        "--volume",
        metavar="MODALITY=middle|COUNT,...",
        help="for NIfTI volumes and DICOM files with several frames: the middle slice as a picture, or COUNT evenly "
        "spaced slices as frames",
    )
    parser.add_argument("--licence", default="", metavar="TEXT", help="licence of the data, stored in shard.json")
    table = parser.add_argument_group("a table of labels")
    table.add_argument("--labels", type=Path, metavar="TABLE", help="text file with a header and one row per example")
    table.add_argument("--id-column", default="id", metavar="NAME", help="column with the files' names (default: id)")
    table.add_argument(
        "--label-column",
        default="label",
        metavar="NAME",
        help="column with the class, with several labels in a cell, or with the number (default: label)",
    )
    table.add_argument(
        "--file-columns", metavar="MODALITY=NAME,...", help="columns with paths of files, relative to the table"
    )
    table.add_argument("--text-columns", metavar="MODALITY=NAME,...", help="columns that contain the texts themselves")
    table.add_argument(
        "--encoding", metavar="NAME", help="e.g. cp1252 (default: UTF-8, or UTF-16 if the file has its byte order mark)"
    )
    table.add_argument(
        "--separator",
        metavar="SIGN",
        help="comma, semicolon, tab, pipe or any sign (default: detected from the header)",
    )
    _add_tasks(parser)
    rows = parser.add_argument_group("tables as modalities", "MODALITY=TABLE: each column is a number or a category")
    rows.add_argument("--numbers", metavar="COLUMN,...", help="columns that must have numbers")
    rows.add_argument("--categories", metavar="COLUMN,...", help="columns of categories, e.g. codes that are numbers")
    rows.add_argument("--units", metavar="COLUMN=UNIT,...", help="units (default: those in headers: age [years])")
    rows.add_argument(
        "--decimal-comma", action="store_true", help="numbers have decimal commas, such as 67,3, in all tables"
    )
    rows.add_argument("--leave-out", metavar="COLUMN,...", help="columns that are not used")
    parser.set_defaults(command=_command)


def _add_tasks(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_argument_group("several labels, or numbers", "docs/how-to/tasks.md has examples")
    tasks.add_argument(
        "--task",
        choices=tuple(NAMED),
        default="single-label",
        help="what an example has: one class, any number of labels, or numbers (default: single-label)",
    )
    tasks.add_argument(
        "--label-columns",
        metavar="A,B,...",
        help="for multi-label, one column per label with 1 or 0, yes or no, true or false; for regression, one column "
        "per target",
    )
    tasks.add_argument(
        "--label-separator",
        metavar="SIGN",
        help="sign between the labels in a cell: semicolon, pipe, comma, tab or any text (default: ; or |)",
    )
    tasks.add_argument(
        "--uncertain",
        choices=("absent", "present", "drop"),
        help="what -1 in a column of --label-columns means; drop leaves the example out",
    )
    tasks.add_argument(
        "--blank",
        choices=("absent", "drop"),
        help="what an empty cell means for labels; drop leaves the example out, also for targets",
    )


def _command(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.ERROR)  # the output below names unreadable files
    from deploy.shards.own_files import shard_of

    found = shard_of.find(options)
    written = shard_of.write(found, options.out)
    for line in [*found.said, *found.conversion.said()]:
        print(line)
    for reason, names in found.left_out.items():
        print(f"left out, {reason}: {_named(names)}")
    for remark, names in found.conversion.remarks.items():
        print(f"check, {remark}: {_named(names)}")
    for modality, count in sorted(written.unreadable.items()):
        total = count + written.values[modality]
        print(f"left out, unreadable: {count} of {total} {modality} values ({count / total:.0%})")
        print("".join(f"  {reason}\n" for reason in written.reasons[modality][:MAX_NAMED]), end="")
        if count > MAX_NAMED:
            print(f"  ... and {count - MAX_NAMED} more")
    _summarise(options, found, written)


def _summarise(options: argparse.Namespace, found: "Found", written: "Written") -> None:
    for files in found.files:
        kept = written.values[files.modality]
        print(f"{files.modality}: {kept} of {files.found} files of {files.source} are in the shard")
    for one in found.records:
        kept = written.values[one.modality]
        print(f"{one.modality}: {kept} of {one.found} rows of {one.path} are in the shard, {_columns(one.columns)}")
    counts = ", ".join(f"{written.values[modality]} {modality}" for modality in found.info.modalities)
    print(f"{options.out}: site {found.info.site}, {written.examples} examples, {counts}")
    if found.info.classes:
        print(f"{NAMED[options.task]} (they must be the same at all sites): {','.join(found.info.classes)}")
    else:
        print(f"The shard has no labels. To predict them: fedmosaic predict RUN --shard {options.out}")
    print(f"To check the shard: fedmosaic inspect {options.out}")


def _columns(columns: "Columns") -> str:
    """The columns with their units, e.g. "2 columns: age (years), sex (2 categories)"."""
    said = [f"{name} ({getattr(one, 'unit', '') or _kind(one)})" for name, one in columns.items()]
    return f"{len(columns)} column{'s' * (len(columns) != 1)}: {', '.join(said)}"


def _kind(column: "Column") -> str:
    if column.type == "number":
        return "number without unit"
    return "1 category" if len(column.values) == 1 else f"{len(column.values)} categories"


def _named(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
