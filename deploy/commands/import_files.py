"""`fedmosaic import`: a site's own files become a shard."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.data.shard import Written
    from deploy.shards.own_files.shard_of import Found

MAX_NAMED = 10
"""How many of the files and ids that were left out a line names."""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic import`."""
    parser = commands.add_parser(
        "import",
        help="make a shard of your own files",
        description="Make a shard of folders of files, a folder a modality. Labels come from a table, in which a file "
        "is called by its name with or without its ending; or, without a table, from the names of folders, one for "
        "each class. Pictures, recordings, texts (.txt) and arrays (.npy: signals, frames of videos) are known. Every "
        "file is read; files are copied, texts go into the metadata. What has no counterpart or cannot be read is left "
        "out and named.",
        epilog="example: fedmosaic import image=photographs --out shards/client-0     (a folder for each class)     "
        "fedmosaic import image=pictures audio=sounds --labels labels.csv --out shards/client-0     "
        "fedmosaic import --labels notes.csv --file-columns image=photo --text-columns text=note --out shards/client-0",
    )
    parser.add_argument("sources", nargs="*", metavar="MODALITY=DIR", help="a modality and the folder of its files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the shard")
    parser.add_argument("--site", metavar="NAME", help="of the site (default: the name of the --out folder)")
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        help="the same at all sites, in the same order (default: the labels found, sorted)",
    )
    parser.add_argument("--unlabelled", action="store_true", help="there are no labels: a shard for prediction only")
    parser.add_argument("--recursive", action="store_true", help="search the folders in MODALITY=DIR as well")
    parser.add_argument("--rate", metavar="MODALITY=N,...", help="samples or frames per second of .npy files")
    parser.add_argument("--licence", default="", metavar="TEXT", help="of the data, kept in shard.json")
    table = parser.add_argument_group("a table of labels")
    table.add_argument("--labels", type=Path, metavar="TABLE", help="text with a header and a row for each example")
    table.add_argument("--id-column", default="id", metavar="NAME", help="what the files are called (default: id)")
    table.add_argument("--label-column", default="label", metavar="NAME", help="the classes (default: label)")
    table.add_argument(
        "--file-columns", metavar="MODALITY=NAME,...", help="columns that name files, relative to the table"
    )
    table.add_argument("--text-columns", metavar="MODALITY=NAME,...", help="columns that hold texts themselves")
    table.add_argument("--encoding", metavar="NAME", help="such as cp1252 (default: UTF-8, or UTF-16 if it says so)")
    table.add_argument(
        "--separator", metavar="SIGN", help="comma, semicolon, tab, pipe or a sign (default: seen from the header)"
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.ERROR)  # what cannot be read is named below
    from deploy.shards.own_files import shard_of

    found = shard_of.find(options)
    written = shard_of.write(found, options.out)
    for line in found.said:
        print(line)
    for reason, names in found.left_out.items():
        print(f"left out, {reason}: {_named(names)}")
    for modality, count in sorted(written.unreadable.items()):
        total = count + written.values[modality]
        print(f"left out, cannot be read: {count} of {total} {modality} values ({count / total:.0%})")
        print("".join(f"  {reason}\n" for reason in written.reasons[modality][:MAX_NAMED]), end="")
        if count > MAX_NAMED:
            print(f"  ... and {count - MAX_NAMED} more")
    _summarise(options, found, written)


def _summarise(options: argparse.Namespace, found: "Found", written: "Written") -> None:
    for files in found.files:
        kept = written.values[files.modality]
        print(f"{files.modality}: {kept} of {files.found} files of {files.source} are in the shard")
    counts = ", ".join(f"{written.values[modality]} {modality}" for modality in found.info.modalities)
    print(f"{options.out}: site {found.info.site}, {written.examples} examples, {counts}")
    if found.info.classes:
        print(f"classes, which must be the same at all sites: {','.join(found.info.classes)}")
    else:
        print(f"it has no labels: fedmosaic predict RUN --shard {options.out}")
    print(f"look at it: fedmosaic inspect {options.out}")


def _named(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
