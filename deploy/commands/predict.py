"""`fedmosaic predict`: what a trained model says of files, or of a shard."""

import argparse
import json
import logging
import os.path
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError, DataError

if TYPE_CHECKING:
    from common.predictor import Prediction, Predictor

MOST_PROBABLE = 5
"""Classes of one example that the table shows."""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic predict`."""
    parser = commands.add_parser(
        "predict",
        help="predict with a trained model, from any of its modalities",
        description="Predict with the model of a run, or of a folder that `fedmosaic export` wrote.",
        epilog='example: fedmosaic predict runs/demo --input image=7.png audio=7.wav     (or text="a small bird")',
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or an exported one")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--input",
        nargs="+",
        metavar="FILE",
        help="the files of one example, as MODALITY=FILE where the kind of file does not tell; a text as MODALITY=TEXT",
    )
    what.add_argument("--shard", type=Path, metavar="SHARD", help="all examples of a shard")
    parser.add_argument(
        "--modalities", nargs="+", metavar="NAME", help="with --shard: only these, as if the others were missing"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON an example")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    if options.modalities and not options.shard:
        raise ConfigError("predict", ["--modalities is for --shard; of --input, leave out what is not to be used"])
    logging.basicConfig(level=logging.ERROR)  # unreadable files of a shard are counted below
    from deploy.progress import working

    with working(f"loading {options.run}"):
        from common.build import deterministic
        from common.predictor import load_model

        deterministic()
        predictor = load_model(options.run)
    if options.shard:
        _predict_shard(predictor, options)
    else:
        _predict_one(predictor, options)


def _predict_one(predictor: "Predictor", options: argparse.Namespace) -> None:
    prediction = predictor.predict([read_input(predictor, options.input)])[0]
    if options.json:
        print(json.dumps(_line(prediction)))
        return
    print(f"{prediction.label}     (from {' and '.join(prediction.modalities)})")
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])[:MOST_PROBABLE]
    _show(("class", "probability"), ((name, f"{value:.1%}") for name, value in ranked))


def read_input(predictor: "Predictor", parts: Sequence[str]) -> dict[str, str | Path]:
    """The example of --input, each part MODALITY=FILE, MODALITY=TEXT or a file whose kind tells its modality.

    Raises DataError.
    """
    found: dict[str, str | Path] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if equals and not os.path.isfile(part):
            modality, given = name, Path(value) if os.path.isfile(value) else value
        else:
            modality, given = _told_by(predictor, Path(part)), Path(part)
        if modality in found:
            raise DataError(f"{modality} is given twice: {found[modality]} and {given}")
        found[modality] = given
    return found


def _told_by(predictor: "Predictor", path: Path) -> str:
    """The modality of a file, by its kind."""
    from common.data.media import read

    if not os.path.isfile(path):
        raise DataError(f"--input: there is no file {str(path)!r}; a text is given as MODALITY=TEXT")
    try:
        raw = read(path)
    except ValueError as error:
        raise DataError(f"--input {error}") from None
    try:
        return predictor.modality_of(raw)
    except DataError as error:
        raise DataError(f"--input {path}: {error}") from None


@dataclass(frozen=True)
class _Row:
    """An example of a shard with its prediction."""

    id: str
    label: str
    prediction: "Prediction"


def _predict_shard(predictor: "Predictor", options: argparse.Namespace) -> None:
    from common.data.loader import load
    from common.data.shard import Shard
    from deploy.progress import working

    shard = Shard.open(options.shard)
    chosen = shard.only(options.modalities) if options.modalities else shard
    with working(f"reading {options.shard}"):
        loaded = load(chosen, {m: predictor.model.encoder(m) for m in predictor.modalities})
        predictions = predictor.predict_batch(loaded.examples)
    labels = {record.id: record.label for record in shard.records}
    rows = [_Row(name, labels[name], made) for name, made in zip(loaded.ids, predictions, strict=True)]
    for modality, count in loaded.unreadable.items():
        print(f"{count} unreadable {modality} values were treated as missing", file=sys.stderr)
    if loaded.unusable:
        print(f"{loaded.unusable} examples without any modality to predict from were left out", file=sys.stderr)
    if options.json:
        for row in rows:
            print(json.dumps({"id": row.id, "label": row.label, **_line(row.prediction)}))
        return
    _show(("example", "label", "prediction", "probability", "from"), map(_cells, rows))
    print(_right(rows, predictor.classes))


def _cells(row: _Row) -> tuple[str, ...]:
    said = row.prediction
    return row.id, row.label, said.label, f"{said.probabilities[said.label]:.1%}", "+".join(said.modalities)


def _right(rows: Sequence[_Row], classes: Sequence[str]) -> str:
    known = [row for row in rows if row.label in classes]
    others = len(rows) - len(known)
    note = f"; {others} more have labels that are no classes of the model" if others else ""
    if not known:
        return f"no label is a class of the model{note}"
    share = sum(row.label == row.prediction.label for row in known) / len(known)
    return f"{share:.1%} of {len(known)} right{note}"


def _line(prediction: "Prediction") -> dict[str, Any]:
    return {
        "prediction": prediction.label,
        "probabilities": dict(prediction.probabilities),
        "modalities": list(prediction.modalities),
    }


def _show(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in head:
        table.add_column(name, justify="right" if name == "probability" else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
