"""`fedmosaic quality`: the quality of generated values. It needs the data of all sites on one machine.

Two measures for each completed modality, each also for real values:
CLIP score  the mean cosine of a value and its source value, in the space of a CLIP or CoCa model; also for real pairs,
            and for shuffled real pairs, which show the score of unrelated values.
Agreement   the share of values for which a classifier of real values (logistic regression on the frozen encoder's
            features) predicts the class of the example.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from common.build import build_model
from common.config.experiment import Experiment
from common.data.completed import folder_of, read_lines
from common.data.loader import Loaded, load
from common.data.shard import Shard
from common.data.sites import TEST, client_folders
from common.errors import ConfigError
from common.frozen.open_clip_models import OpenClip, load_open_clip
from common.media.values import Value
from common.modality import Modality
from common.seeding import rng
from common.types import Origin
from deploy.terminal import terminal

CHUNK = 64


@dataclass(frozen=True)
class Quality:
    """The quality of the generated values of one modality. made, rejected: their numbers."""

    made: int
    rejected: int
    score: float
    score_real: float
    score_shuffled: float
    agreement: float
    agreement_real: float


def measure(experiment: Experiment, shards: Path, scorer: str) -> dict[Modality, Quality]:
    """The quality by completed modality. scorer: a CLIP or CoCa model of open_clip.

    Raises ConfigError when the experiment has no completion or another task than single-label, ShardError when a shard
    is not completed.
    """
    if experiment.task.name != "single-label":
        raise ConfigError("task", [f"agreement is the share of correct classes, which {experiment.task.name} has not"])
    if not experiment.completion:
        raise ConfigError("completion", ["the experiment does not complete any modality: add this section"])
    clients = [Shard.open(folder) for folder in client_folders(shards, experiment.data.clients)]
    test = Shard.open(shards / TEST)
    for shard in (*clients, test):
        shard.check_task(experiment.task.name)
    model = build_model(experiment, len(test.info.classes))
    encoders = {m: model.encoder(m) for m in model.modalities}
    loaded = [load(shard, encoders, experiment.completion) for shard in clients]
    real = load(test, encoders)
    clip = load_open_clip(scorer)
    found = {}
    for modality, completer in sorted(experiment.completion.items()):
        lines = [line for shard in clients for line in read_lines(folder_of(shard, modality, completer)).values()]
        pairs = [pair for shard, part in zip(clients, loaded, strict=True)
                 for pair in _generated_pairs(shard, part, modality, completer)]  # fmt: skip
        source = completer["source"]
        complete = [record for record in test.records if record.has(modality) and record.has(source)]
        real_pairs = [(Value(record.value(modality)), Value(record.value(source))) for record in complete]
        order = rng(experiment.seed, "shuffled").permutation(len(real_pairs))
        shuffled = [(real_pairs[i][0], real_pairs[j][1]) for i, j in enumerate(order)]
        generated, observed = _agreements(encoders[modality], loaded, real, modality)
        found[modality] = Quality(
            made=len(pairs),
            rejected=sum("rejected" in line for line in lines),
            score=_score(clip, pairs),
            score_real=_score(clip, real_pairs),
            score_shuffled=_score(clip, shuffled),
            agreement=generated,
            agreement_real=observed,
        )
    return found


def show(found: Mapping[Modality, Quality]) -> None:
    """Print the table."""
    table = Table(title="Quality of generated values", title_justify="left")
    for head in ("", *found):
        table.add_column(head, justify="right" if head else "left")
    rows = {
        "values made": [str(q.made) for q in found.values()],
        "rejected": [str(q.rejected) for q in found.values()],
        "CLIP score": [f"{q.score:.3f}" for q in found.values()],
        "  of real pairs": [f"{q.score_real:.3f}" for q in found.values()],
        "  of shuffled pairs": [f"{q.score_shuffled:.3f}" for q in found.values()],
        "agreement with the class": [f"{q.agreement:.1%}" for q in found.values()],
        "  of real values": [f"{q.agreement_real:.1%}" for q in found.values()],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    terminal().print(table)


def _generated_pairs(
    shard: Shard, loaded: Loaded, modality: Modality, completer: Mapping[str, str]
) -> list[tuple[Value, Value]]:
    """Pairs of a generated value and its source value."""
    folder = folder_of(shard, modality, dict(completer))
    lines, records = read_lines(folder), {record.id: record for record in shard.records}
    generated = loaded.examples.origin[modality] == Origin.GENERATED
    pairs = []
    for name in (name for name, made in zip(loaded.ids, generated.tolist(), strict=True) if made):
        line = lines[name]
        value = Value(line["value"] if "value" in line else folder / line["file_name"])
        pairs.append((value, Value(records[name].value(completer["source"]))))
    return pairs


def _score(clip: OpenClip, pairs: Sequence[tuple[Value, Value]]) -> float:
    sides = [torch.cat([clip.embed([pair[side].read() for pair in pairs[i : i + CHUNK]])
                        for i in range(0, len(pairs), CHUNK)]) for side in (0, 1)] if pairs else None  # fmt: skip
    return float((sides[0] * sides[1]).sum(1).mean()) if sides else float("nan")


def _agreements(
    encoder: torch.nn.Module, loaded: Sequence[Loaded], test: Loaded, modality: Modality
) -> tuple[float, float]:
    """The agreement of the generated values, and of the real values of the test shard."""
    parts = [part.examples for part in loaded] + [test.examples]
    features = [_pooled(encoder, part.inputs[modality]) for part in parts]
    labels = [part.labels.numpy() for part in parts]
    origins = [part.origin[modality].numpy() for part in parts]
    x, y, origin = (np.concatenate(column[:-1]) for column in (features, labels, origins))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(x[origin == Origin.OBSERVED], y[origin == Origin.OBSERVED])
    made = origin == Origin.GENERATED
    generated = float(classifier.score(x[made], y[made])) if made.any() else float("nan")
    return generated, float(classifier.score(features[-1], labels[-1]))


@torch.no_grad()
def _pooled(encoder: torch.nn.Module, inputs: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return torch.cat([encoder(part) for part in torch.split(inputs, CHUNK)]).double().numpy()
