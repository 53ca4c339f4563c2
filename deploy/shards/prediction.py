"""Predictions for a shard or for folders of files, one row per example, also for unreadable examples."""

import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from common.data.loader import load
from common.data.shard import Record, Shard, ShardInfo
from common.errors import ConfigError
from common.evaluation.figures import standard
from common.media.values import Value
from common.modality import Modality
from common.tasks.labels import NO_LABEL, Label, as_written
from common.tasks.observed import tally
from common.tasks.targets import targets
from common.trained.predictor import Prediction, Predictor
from deploy.shards.own_files.folders import Files, unlabelled


@dataclass(frozen=True)
class Row:
    """An example with its prediction. prediction: None if no value could be read. problems: by modality, the reason why
    an existing value was not used."""

    id: str
    label: Label
    prediction: Prediction | None
    problems: Mapping[Modality, str]

    @property
    def in_words(self) -> str:
        """The unused modalities with reasons."""
        return "; ".join(f"{modality}: {why}" for modality, why in self.problems.items())

    def to_json(self) -> dict[str, Any]:
        """JSON values of the row."""
        label = None if self.label == NO_LABEL else as_written(self.label)
        return {"id": self.id, "label": label, **as_json(self.prediction), "problems": dict(self.problems)}


def as_json(prediction: Prediction | None) -> dict[str, Any]:
    """JSON values of a prediction."""
    if prediction is None:
        return {"prediction": None, "probabilities": {}, "modalities": []}
    return {
        "prediction": as_written(prediction.label),
        "probabilities": dict(prediction.probabilities),
        "modalities": list(prediction.modalities),
        **({"notes": {m: list(notes) for m, notes in prediction.notes.items()}} if prediction.notes else {}),
    }


def predict_shard(predictor: Predictor, shard: Shard) -> list[Row]:
    """One row per example of a shard, in the shard's order.

    Raises ShardError when no example can be used.
    """
    loaded = load(shard, {m: predictor.model.encoder(m) for m in predictor.modalities})
    made = dict(zip(loaded.ids, predictor.predict_batch(loaded.examples), strict=True))
    for record in shard.records:
        if record.id in made and (notes := _notes(predictor, record)):
            made[record.id] = replace(made[record.id], notes=notes)
    return [
        Row(record.id, record.label, made.get(record.id), _problems(predictor, shard, record, made.get(record.id)))
        for record in shard.records
    ]


def _notes(predictor: Predictor, record: Record) -> dict[Modality, Sequence[str]]:
    """By modality, the findings of the encoder about a row of a table."""
    found = {m: predictor.model.encoder(m).notes(row) for m, row in record.rows.items() if m in predictor.modalities}
    return {m: notes for m, notes in found.items() if notes}


def predict_folders(predictor: Predictor, folders: Mapping[Modality, Path]) -> tuple[list[Row], list[str]]:
    """One row per example of folders of files, and notes about unused files. Files of one example have the same name.

    Raises ConfigError when the model does not have a modality or when two files have the same name, ShardError when
    nothing can be read.
    """
    mistakes = [
        f"the model has no encoder for {m}; it has {', '.join(predictor.modalities)}"
        for m in folders
        if m not in predictor.modalities
    ]
    left_out: dict[str, list[str]] = {}
    found = [unlabelled(m, folder, True, mistakes, left_out) for m, folder in folders.items()]
    mistakes += [
        f"{files.modality}: {files.source} contains no file of a known kind" for files in found if not files.found
    ]
    if mistakes:
        raise ConfigError("predict", mistakes)
    notes = [f"left out, {reason}: {', '.join(names)}" for reason, names in left_out.items()]
    with tempfile.TemporaryDirectory(
        prefix="fedmosaic-"
    ) as cache:  # features of frozen encoders stay out of the folders
        return predict_shard(predictor, _shard_of(found, Path(cache))), notes


def _shard_of(found: Sequence[Files], folder: Path) -> Shard:
    names = sorted({name for files in found for name in files.by_id})
    records = [
        Record(name, NO_LABEL, {}, {files.modality: files.by_id[name] for files in found if name in files.by_id})
        for name in names
    ]
    return Shard(folder, ShardInfo(site="", classes=[], modalities=[files.modality for files in found]), records)


def _problems(predictor: Predictor, shard: Shard, record: Record, prediction: Prediction | None) -> dict[Modality, str]:
    used = prediction.modalities if prediction else ()
    unused = [m for m in predictor.modalities if record.has(m) and m not in used]
    return {m: _why(predictor, m, Value(record.value(m), rate=shard.info.rates.get(m))) for m in unused}


def _why(predictor: Predictor, modality: Modality, value: Value) -> str:
    try:
        predictor.model.encoder(modality).check(value.read())
    except (ValueError, RuntimeError, ArithmeticError) as error:
        return str(error)
    return "the prediction did not use it"


def write_csv(rows: Sequence[Row], classes: Sequence[str], file: TextIO) -> None:
    """Write one line per row: id, label (if there are labels), prediction, confidence (for single-label), the used
    modalities, the unused modalities with reasons, and the probability of each class or label. The labels of
    multi-label, and the values of several targets, are separated by semicolons."""
    labelled = any(row.label != NO_LABEL for row in rows)
    single = all(isinstance(row.prediction.label, str) for row in rows if row.prediction)
    likely = any(row.prediction.probabilities for row in rows if row.prediction)
    head = ["id", *["label"] * labelled, "prediction", *["confidence"] * single, "modalities", "problem"]
    writer = csv.writer(file)
    writer.writerow([*head, *(f"p({name})" for name in classes if likely)])
    for row in rows:
        said = row.prediction
        sure = [f"{confidence(said):.4f}" if said else ""] if single else []
        label = [_cell(row.label)] * labelled
        cells = [_cell(said.label) if said else "", *sure, "+".join(said.modalities) if said else ""]
        writer.writerow([row.id, *label, *cells, row.in_words, *(_probabilities(said, classes) if likely else ())])


def confidence(said: Prediction) -> float:
    """The probability of the predicted class of single-label."""
    return said.probabilities[str(said.label)]


def _cell(label: Label) -> str:
    if isinstance(label, str):
        return label
    return ";".join(f"{one:.6g}" if isinstance(one, float) else one for one in label)


def _probabilities(said: Prediction | None, classes: Sequence[str]) -> Iterator[str]:
    return (f"{said.probabilities[name]:.6f}" if said else "" for name in classes)


def figures_of(rows: Sequence[Row], predictor: Predictor) -> dict[str, float]:
    """The standard metrics of the task, by key, over the rows with labels of the model; empty without such rows.

    Raises ConfigError when a label is not one of the model's.
    """
    known = [(row.label, row.prediction) for row in rows if row.prediction and row.label != NO_LABEL]
    if not known:
        return {}
    name = predictor.task.name
    try:
        wanted = targets(name, [label for label, _ in known], predictor.classes).double().numpy()
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError("predict", [f"the labels are not those of the model: {error}"]) from None
    scores = np.array([list(said.probabilities.values()) or said.label for _, said in known], np.float64)
    counted = tally(predictor.task.observe(scores, wanted, exact=True))
    found = {one.key: one.of(counted) for one in standard(name)}
    return {key: value for key, value in found.items() if value is not None}
