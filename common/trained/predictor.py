"""Predicts with a trained model: `load_model("runs/demo").predict([{"image": "7.png", "audio": "7.wav"}])`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from common.data.batches import batches
from common.errors import DataError, ModelError
from common.media.values import Raw, checked, read
from common.modality import Modality
from common.models.base import MultimodalModel
from common.tasks.base import Task
from common.tasks.find import task_of
from common.tasks.labels import Label
from common.trained.saved_model import Best, read_model
from common.types import CPU, Batch, Origin

CHUNK = 256
"""Number of examples that are predicted together."""

Given = str | Path | Raw | Mapping[str, Any]
"""One modality of one example: a file, or a value of type `common.media.values.Raw`, e.g. a PIL picture, a `Sound` or
an array. A mapping is a row of a table, e.g. {"age": 63, "sex": None}. A str is a text if the modality's encoder reads
texts, else the name of a file."""


@dataclass(frozen=True)
class Prediction:
    """The prediction for one example.

    label: the most probable class; for multi-label, the labels whose probability reaches their threshold; for
        regression, the value of each target.
    probabilities: by class or label, in the model's order. Those of single-label add up to 1. Empty for regression.
    modalities: the modalities that the prediction uses.
    notes: by modality, the parts of a value that the encoder does not use, e.g. a category that is not agreed. Only
    `Predictor.predict` finds them.
    """

    label: Label
    probabilities: Mapping[str, float]
    modalities: tuple[Modality, ...]
    notes: Mapping[Modality, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictor:
    """A trained model in eval mode, with its task.

    best: the description of the best model of a run; None for the last model.
    """

    model: MultimodalModel
    task: Task
    best: Best | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, the labels, or the targets, in the order of the model's outputs."""
        return self.task.classes

    @property
    def modalities(self) -> list[Modality]:
        """The modalities with an encoder in the model, in alphabetical order."""
        return self.model.modalities

    def predict(self, examples: Sequence[Mapping[Modality, Given]]) -> list[Prediction]:
        """One prediction per example. An example has at least one of the model's modalities.

        Raises DataError, which contains the number of the example (from 1) and the modality, when a file cannot be
        read, an encoder refuses a value, or the model has no encoder for a modality.
        """
        numbered, found = enumerate(examples, start=1), list[Prediction]()
        while chunk := [self._prepare(number, example) for number, example in islice(numbered, CHUNK)]:
            plain = self.predict_batch(self._batch([{m: one.tensor for m, one in made.items()} for made in chunk]))
            found += [
                replace(prediction, notes={m: one.notes for m, one in made.items() if one.notes})
                for prediction, made in zip(plain, chunk, strict=True)
            ]
        return found

    @torch.no_grad()
    def predict_batch(self, examples: Batch) -> list[Prediction]:
        """One prediction per prepared example. Labels are not used.

        Raises ModelError when a prediction is not finite.
        """
        return [
            prediction for batch in batches(examples, CHUNK, self.model.device) for prediction in self._predict(batch)
        ]

    def modality_of(self, raw: Raw) -> Modality:
        """The modality whose encoder accepts a value.

        Raises DataError unless exactly one encoder accepts it.
        """
        refusals = {m: reason for m in self.modalities if (reason := self._refusal(m, raw))}
        fitting = [m for m in self.modalities if m not in refusals]
        if len(fitting) > 1:
            raise DataError(f"it may be {' or '.join(fitting)}: name the modality, e.g. {fitting[0]}=FILE")
        if not fitting:
            raise DataError("no encoder accepts it: " + "; ".join(f"{m}: {why}" for m, why in refusals.items()))
        return fitting[0]

    def _refusal(self, modality: Modality, raw: Raw) -> str | None:
        """The reason why an encoder refuses a value; None if it accepts the value."""
        try:
            self.model.encoder(modality).check(raw)
        except ValueError as error:
            return str(error)
        return None

    def _prepare(self, number: int, example: Mapping[Modality, Given]) -> "dict[Modality, _Prepared]":
        if not isinstance(example, Mapping) or not example:
            raise DataError(f"example {number}: a mapping of one or more modalities to values is needed")
        prepared = {}
        for modality, given in example.items():
            if modality not in self.modalities:
                known = ", ".join(self.modalities)
                raise DataError(f"example {number}: the model has no encoder for {modality!r}; it has {known}")
            try:
                prepared[modality] = self._prepared(modality, given)
            except ValueError as error:
                raise DataError(f"example {number}, {modality}: {error}") from None
        return prepared

    def _prepared(self, modality: Modality, given: Given) -> "_Prepared":
        encoder = self.model.encoder(modality)
        if isinstance(given, str):
            with suppress(ValueError):
                return _Prepared(encoder.prepare(text := checked(given)), encoder.notes(text))
            given = Path(given)
        raw = read(given) if isinstance(given, Path) else checked(given)
        return _Prepared(encoder.prepare(raw), encoder.notes(raw))

    def _batch(self, prepared: Sequence[Mapping[Modality, Tensor]]) -> Batch:
        held = [m for m in self.modalities if any(m in example for example in prepared)]
        blanks = {m: self.model.encoder(m).blank() for m in held}
        inputs = {m: torch.stack([example.get(m, blanks[m]) for example in prepared]) for m in held}
        origin = {
            m: torch.tensor([Origin.OBSERVED if m in example else Origin.MISSING for example in prepared]) for m in held
        }
        return Batch(inputs, origin, torch.zeros(len(prepared), dtype=torch.int64))

    def _predict(self, batch: Batch) -> Iterator[Prediction]:
        scores = self.task.scores(self.model.predict(batch).cpu())
        if not scores.isfinite().all():
            raise ModelError("the model's predictions are not finite: its training has diverged")
        has = {m: batch.has(m).tolist() for m in batch.modalities}
        for row, values in enumerate(scores.numpy()):
            used = tuple(m for m in batch.modalities if has[m][row])
            yield Prediction(self.task.decide(values), self.task.probabilities(values), used)


@dataclass(frozen=True)
class _Prepared:
    """A prepared value, and the encoder's findings about it."""

    tensor: Tensor
    notes: Sequence[str]


def load_model(
    folder: str | os.PathLike[str], device: torch.device | str = CPU, which: Literal["best", "last"] | None = None
) -> Predictor:
    """The model in a run's folder, or in a folder that `fedmosaic export` wrote, on a device. which: the best or the
    last model of a run; None: the best one if the run keeps it (`federation.keep.best`), else the last one.

    Raises ModelError.
    """
    model, description = read_model(Path(folder), which)
    return Predictor(model.to(device), task_of(description.task, description.classes), description.best)
