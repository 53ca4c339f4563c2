"""`fedmosaic predict`: predict the classes of files or of a shard with a trained model."""

import argparse
import io
import json
import logging
import os.path
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError, DataError
from deploy.commands.shared.device import add_device
from deploy.commands.shared.which_model import add_model

if TYPE_CHECKING:
    from common.media.table_row import TableRow
    from common.trained.predictor import Predictor
    from deploy.shards.prediction import Row

MOST_PROBABLE = 5
"""The maximum number of classes in the table of one example."""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic predict`."""
    parser = commands.add_parser(
        "predict",
        help="predict with a trained model, from any of its modalities",
        description="Predict with the model of a run, or with a model that `fedmosaic export` wrote.",
        epilog='example: fedmosaic predict runs/demo --input image=7.png audio=7.wav     (or text="a small bird")     '
        "fedmosaic predict runs/demo --folder image=new --out predictions.csv",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, or an exported model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--input",
        nargs="+",
        metavar="FILE",
        help="the files of one example; MODALITY=FILE if several modalities accept the kind of file; MODALITY=TEXT for "
        "a text; MODALITY=ROW.json or MODALITY=JSON for a row of a table",
    )
    what.add_argument("--shard", type=Path, metavar="SHARD", help="all examples of a shard, with or without labels")
    what.add_argument(
        "--folder",
        nargs="+",
        metavar="MODALITY=DIR",
        help="all files of the folders and their subfolders; files of one example have the same name",
    )
    parser.add_argument("--modalities", nargs="+", metavar="NAME", help="with --shard: use only these modalities")
    add_model(parser)
    add_device(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one line of JSON per example")
    form.add_argument("--csv", action="store_true", help="with --shard or --folder: print CSV, for spreadsheets")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="with --shard or --folder: write CSV to a file")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    if mistakes := _mistakes(options):
        raise ConfigError("predict", mistakes)
    logging.basicConfig(level=logging.ERROR)  # the output below counts unreadable files
    from deploy.progress import working

    with working(f"loading {options.run}"):
        from common.hardware.computing import Hardware
        from common.trained.predictor import load_model

        predictor = load_model(options.run, Hardware(options.device).use(), options.model)
    _say_which(predictor)
    if options.input:
        _predict_one(predictor, options)
    else:
        _predict_many(predictor, options)


def _say_which(predictor: "Predictor") -> None:
    """Describe the model on standard error if it is the best one of a run."""
    from common.words.best_model import best_in_words

    if predictor.best:
        print(f"predicting with {best_in_words(predictor.best.model_dump())}", file=sys.stderr)


def _mistakes(options: argparse.Namespace) -> list[str]:
    """Options that exclude each other and paths that do not exist, found before large libraries load."""
    mistakes = []
    if options.modalities and not options.shard:
        mistakes.append("--modalities needs --shard; with --input or --folder, leave out the other modalities")
    if options.input and (options.csv or options.out):
        mistakes.append("--csv and --out need --shard or --folder")
    if not options.run.is_dir():
        mistakes.append(f"RUN: there is no folder {options.run}")
    if options.out and not options.out.parent.is_dir():
        mistakes.append(f"--out: there is no folder {options.out.parent}")
    for given in options.folder or ():
        name, equals, folder = given.partition("=")
        if not equals or not name:
            mistakes.append(f"--folder: {given!r} is not MODALITY=DIR")
        elif not Path(folder).is_dir():
            table = f". For a table: fedmosaic import {given} --unlabelled --out NEW" if Path(folder).is_file() else ""
            mistakes.append(f"--folder: there is no folder {folder}{table}")
    return mistakes


def _predict_one(predictor: "Predictor", options: argparse.Namespace) -> None:
    from common.tasks.labels import in_words
    from deploy.shards.prediction import as_json

    prediction = predictor.predict([read_input(predictor, options.input)])[0]
    if options.json:
        print(json.dumps(as_json(prediction)))
        return
    for modality, notes in prediction.notes.items():
        for note in notes:
            print(f"{modality}: {note}", file=sys.stderr)
    print(f"{in_words(prediction.label)}     (from {' and '.join(prediction.modalities)})")
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:MOST_PROBABLE]
    if ranked:
        _show(("class", "probability"), ((name, f"{value:.1%}") for name, value in ranked))


def read_input(predictor: "Predictor", parts: Sequence[str]) -> "dict[str, str | Path | TableRow]":
    """The example of --input. Each part is MODALITY=FILE, MODALITY=TEXT, MODALITY=ROW, or a file whose kind implies its
    modality.

    Raises DataError.
    """
    found: dict[str, str | Path | TableRow] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if equals and not os.path.isfile(part):
            modality, given = name, _given(predictor, name, value)
        else:
            modality, given = _told_by(predictor, Path(part)), Path(part)
        if modality in found:
            raise DataError(f"--input: {modality} has two values, {found[modality]} and {given}; keep one of them")
        found[modality] = given
    return found


def _given(predictor: "Predictor", modality: str, value: str) -> "str | Path | TableRow":
    """A row if the encoder of the modality reads tables, else a file or a text.

    Raises DataError for a row that is not JSON.
    """
    from common.encoders.table import TableEncoder
    from common.media.table_row import row_of_json

    path = Path(value) if os.path.isfile(value) else None
    if modality not in predictor.modalities or not isinstance(predictor.model.encoder(modality), TableEncoder):
        return path or value
    try:
        return row_of_json(path.read_text(encoding="utf-8-sig") if path else value)
    except (ValueError, OSError) as error:
        rows = f". For the rows of a table: fedmosaic import {modality}={value} --unlabelled --out NEW" if path else ""
        raise DataError(f"--input {modality}={value}: {error}{rows}") from None


def _told_by(predictor: "Predictor", path: Path) -> str:
    """The modality that the kind of a file implies."""
    from common.media.values import read

    if not os.path.isfile(path):
        raise DataError(f"--input: there is no file {str(path)!r}; write a text as MODALITY=TEXT")
    try:
        raw = read(path)
    except ValueError as error:
        raise DataError(f"--input {error}") from None
    try:
        return predictor.modality_of(raw)
    except DataError as error:
        raise DataError(f"--input {path}: {error}") from None


def _predict_many(predictor: "Predictor", options: argparse.Namespace) -> None:
    from deploy.progress import working

    with working(f"reading {options.shard or ' '.join(options.folder)}"):
        rows, notes = _rows(predictor, options)
    for note in notes:
        print(note, file=sys.stderr)
    if options.json:
        for row in rows:
            print(json.dumps(row.to_json()))
    elif options.csv:
        _write_csv(rows, predictor, options)
    elif options.out:
        _write_csv(rows, predictor, options)
        done = sum(row.prediction is not None for row in rows)
        print(f"{options.out}: {done} predictions of {len(rows)} examples; {_right(rows, predictor)}")
    else:
        labelled = any(row.label != "" for row in rows)
        head, cells = ("example", "label", "prediction", "probability", "from"), map(_cells, rows)
        _show(*((head, cells) if labelled else (_without_label(head), map(_without_label, cells))))
        print(_right(rows, predictor))


def _rows(predictor: "Predictor", options: argparse.Namespace) -> tuple[list["Row"], list[str]]:
    """The predictions, and notes for standard error."""
    from common.data.shard import Shard
    from deploy.shards.prediction import predict_folders, predict_shard

    if options.folder:
        pairs = (given.partition("=") for given in options.folder)
        rows, notes = predict_folders(predictor, {name: Path(folder) for name, _, folder in pairs})
    else:
        shard = Shard.open(options.shard, labelled=False)
        rows, notes = predict_shard(predictor, shard.only(options.modalities) if options.modalities else shard), []
    problems = Counter(modality for row in rows for modality in row.problems)
    examples = {modality: reason for row in reversed(rows) for modality, reason in row.problems.items()}
    notes += [
        f"{count} unreadable {modality} values were treated as missing, e.g. {examples[modality]}"
        for modality, count in problems.items()
    ]
    unused = Counter(
        f"{m}: {note}" for row in rows if row.prediction for m, own in row.prediction.notes.items() for note in own
    )
    notes += [f"{count} x {note}" for note, count in unused.items()]
    if lost := sum(row.prediction is None for row in rows):
        notes.append(f"{lost} examples have no usable value, and get no prediction")
    return rows, notes


def _write_csv(rows: Sequence["Row"], predictor: "Predictor", options: argparse.Namespace) -> None:
    from common.files import write_whole
    from deploy.shards.prediction import write_csv

    text = io.StringIO(newline="")
    write_csv(rows, predictor.classes, text)
    if not options.out:
        print(text.getvalue(), end="")
        return
    try:
        write_whole(options.out, text.getvalue().encode())
    except OSError as error:
        raise ConfigError("predict", [f"--out: {options.out} cannot be written: {error.strerror}"]) from None


def _cells(row: "Row") -> tuple[str, ...]:
    from common.tasks.labels import in_words
    from deploy.shards.prediction import confidence

    said = row.prediction
    if said is None:
        return row.id, in_words(row.label), "", "", row.in_words
    sure = f"{confidence(said):.1%}" if isinstance(said.label, str) else ""
    return row.id, in_words(row.label), in_words(said.label), sure, "+".join(said.modalities)


def _without_label(cells: tuple[str, ...]) -> tuple[str, ...]:
    return cells[:1] + cells[2:]


def _right(rows: Sequence["Row"], predictor: "Predictor") -> str:
    """How well the predictions agree with the labels: for single-label, the share of right ones; for other tasks, the
    figures of the task."""
    from deploy.shards.prediction import figures_of

    predicted = [(row.label, row.prediction.label) for row in rows if row.prediction]
    classes = predictor.classes
    if any(not isinstance(said, str) for _, said in predicted):
        found = figures_of(rows, predictor)
        return (
            ", ".join(f"{name} {value:.3g}" for name, value in found.items()) or "there are no labels to compare with"
        )
    known = [(label, said) for label, said in predicted if label in classes]
    others = sum(label not in classes and label != "" for label, _ in predicted)
    note = f"; {others} more have labels that are not classes of the model" if others else ""
    if not known:
        return f"no label is a class of the model{note}" if others else "there are no labels to compare with"
    return f"{sum(label == said for label, said in known) / len(known):.1%} of {len(known)} correct{note}"


def _show(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from deploy.terminal import terminal

    table = Table()
    for name in head:
        table.add_column(name, justify="right" if name == "probability" else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    terminal().print(table)
