"""The given model with which a run starts: `fedmosaic run --init`."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.blocks import SHARED, Params, all_finite, block_of, by_block
from common.build import bases
from common.config.experiment import Experiment, Model
from common.errors import ConfigError, ModelError
from common.modality import Modality
from common.trained.saved_model import Description, described, read_weights, weights_file
from common.words.units import few
from server.record.run_folder import RunFolder

RESUMED = "a run that continues has the model that it began with: leave --init out"
PICKLED = (b"PK\x03\x04", b"\x80")
"""The first bytes of pickled files, among them those of `torch.save`."""
NAMED = 2
"""The number of tensors per block that a sentence names."""


@dataclass(frozen=True)
class GivenModel:
    """A model that this project wrote. file: its tensors. digest: the SHA-256 digest of this file."""

    file: Path
    digest: str
    params: Params
    description: Description

    @classmethod
    def read(cls, path: Path) -> "GivenModel":
        """The model of a run's folder (the best one if the run keeps it), of an exported folder, or of a file of one
        of them.

        Raises ModelError.
        """
        file = weights_file(path) if path.is_dir() else path
        if not file.is_file():
            raise ModelError(f"--init: {path} is not the folder of a run with a model, and not a model's file")
        with file.open("rb") as opened:
            if opened.read(4).startswith(PICKLED):
                raise ModelError(f"--init: {file} contains pickles, which can run code: a .safetensors file is needed")
            opened.seek(0)
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        params, metadata = read_weights(file)
        if "about" in metadata:
            raise ModelError(f"--init: {file} is a checkpoint: name the folder of its run")
        if not all_finite(value for value in params.values() if value.is_floating_point()):
            raise ModelError(f"--init: {file} has values that are not finite: its training has diverged")
        return cls(file, digest, params, described(file, metadata))

    def into(self, initial: Params, experiment: Experiment, classes: Sequence[str]) -> tuple[Params, dict[str, Any]]:
        """The initial parameters of an experiment with the values of this model, and the entry `started_from` of the
        summary.

        A tensor is loaded if its name and its shape are equal. The block of a modality with other pre-trained weights
        is not loaded, because its values belong to those weights.

        Raises ModelError when no tensor fits.
        """
        other = self._other_bases(experiment.model)
        fitting = {
            name: self.params[name].to(value.dtype)
            for name, value in initial.items()
            if block_of(name) not in other and name in self.params and self.params[name].shape == value.shape
        }
        if not fitting:
            raise ModelError(
                f"--init: no tensor of {self.file} fits the model of this experiment{_after(other.values())}: give a "
                "run with the same architecture or encoders"
            )
        notes = list(other.values())
        if (known := tuple(self.description.classes)) != tuple(classes):
            notes.append(f"the model in the file has other classes: {few(known, 5)}")
        return initial | fitting, {
            "file": str(self.file),
            "sha256": self.digest,
            "loaded": {block: len(names) for block, names in by_block(fitting).items()},
            "initial": by_block(initial.keys() - fitting.keys()),
            "unused": by_block(self.params.keys() - fitting.keys()),
            "notes": notes,
        }

    def _other_bases(self, model: Model) -> dict[Modality, str]:
        """By modality, the difference between the pre-trained weights of this model and those of an experiment."""
        here, there = bases(model), self.description.frozen
        blocks = {block_of(name) for name in self.params} - {SHARED}
        return {
            modality: f"{modality} is not loaded, because its pre-trained weights differ: "
            f"{there.get(modality) or 'none, or unknown,'} in the file, "
            f"{' or '.join(sorted(here.get(modality, ()))) or 'none'} here"
            for modality in sorted(blocks & model.encoders.keys())
            if {there.get(modality, "")} != set(here.get(modality) or {""})
        }


def given_model(init: Path | None, run: RunFolder) -> GivenModel | None:
    """The model with which a run begins; None for random weights, and for a run that continues from a checkpoint. A
    run that is resumed before its first checkpoint begins with the same model as before.

    Raises ModelError, and ConfigError when the file has changed since then.
    """
    if run.checkpoint:
        return None
    before = run.given()
    path = Path(before["file"]) if before else init
    if path is None:
        return None
    model = GivenModel.read(path)
    if before and before["sha256"] != model.digest:
        raise ConfigError("--init", [f"{path} has changed since the run began: start a new run"])
    run.begin_with(model.file, model.digest)
    return model


def started_in_words(started: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about the entry `started_from` of the summary."""
    counts = ", ".join(f"{block} {count}" for block, count in started["loaded"].items())
    yield f"started from {started['file']}: {sum(started['loaded'].values())} tensors are loaded ({counts})"
    if started["initial"]:
        yield f"not in the file, so with their initial values: {_tensors(started['initial'])}"
    if started["unused"]:
        yield f"in the file, but not used: {_tensors(started['unused'])}"
    yield from started["notes"]


def _tensors(blocks: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{block} {len(names)} ({few(names, NAMED)})" for block, names in blocks.items())


def _after(notes: Iterable[str]) -> str:
    return "".join(f"; {note}" for note in notes)
