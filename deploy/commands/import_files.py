"""`fedmosaic import`: folders of a site's own files become a shard."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_NAMED = 10
"""How many of the files and ids that were left out a line names."""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic import`."""
    parser = commands.add_parser(
        "import",
        help="make a shard of your own files",
        description="Make a shard of folders of files, a folder a modality, and a table of labels. A file belongs to "
        "the example whose id is the file's name without its ending. Pictures, recordings, texts (.txt) and arrays "
        "(.npy: signals, frames of videos) are known. Files are copied, texts go into the metadata. What has no "
        "counterpart is left out and named.",
        epilog="example: fedmosaic import image=pictures audio=sounds text=notes --labels labels.csv "
        "--out shards/client-0 --site north --classes cat,dog",
    )
    parser.add_argument("sources", nargs="+", metavar="MODALITY=DIR", help="a modality and the folder of its files")
    parser.add_argument("--labels", type=Path, required=True, metavar="CSV", help="with the columns id and label")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the shard")
    parser.add_argument("--site", metavar="NAME", help="of the site (default: the name of the --out folder)")
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        help="the same at all sites, in the same order (default: the labels of the table, sorted)",
    )
    parser.add_argument("--licence", default="", metavar="TEXT", help="of the data, kept in shard.json")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from deploy import own_files

    found = own_files.find(options)
    written = own_files.write(found, options.out)
    for reason, names in found.left_out.items():
        print(f"left out, {reason}: {_named(names)}")
    for modality, count in sorted(written.unreadable.items()):
        print(f"left out, cannot be read: {count} of {modality}, e.g. {written.reasons[modality]}")
    counts = ", ".join(f"{written.values[modality]} {modality}" for modality in found.info.modalities)
    print(f"{options.out}: site {found.info.site}, {counts}")
    print(f"classes, which must be the same at all sites: {','.join(found.info.classes)}")
    print(f"look at it: fedmosaic inspect {options.out}")


def _named(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
