"""The predictions of a model for every subset of modalities, and their tallies."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from common.data.batches import batches
from common.errors import TrainingError
from common.modality import subset_name, subsets
from common.models.base import MultimodalModel
from common.tasks.base import Task
from common.tasks.observed import Numbers, Tally, tally
from common.types import Batch

Tallies = dict[str, Tally]
"""The tallies by subset of modalities, e.g. "audio+image"."""


@dataclass(frozen=True)
class Scored:
    """The scores [N, K] and the targets [N] or [N, K] of the examples that have all modalities of a subset."""

    subset: str
    scores: Numbers
    targets: Numbers


def merge(into: Tallies, more: Mapping[str, Tally]) -> Tallies:
    """The sums of tallies, by subset."""
    merged = dict(into)
    for name, one in more.items():
        merged[name] = merged[name] + one if name in merged else one
    return merged


def evaluate(model: MultimodalModel, examples: Batch, batch_size: int, task: Task, exact: bool = False) -> Tallies:
    """The tallies of every non-empty subset of the modalities, over the examples that have all modalities of the
    subset. exact: see `Task.observe`.

    The model is in eval mode afterwards.

    Raises TrainingError when a prediction is not finite.
    """
    return {
        scored.subset: tally(task.observe(scored.scores, scored.targets, exact))
        for scored in predictions(model, examples, batch_size, task)
    }


@torch.no_grad()
def predictions(model: MultimodalModel, examples: Batch, batch_size: int, task: Task) -> Iterator[Scored]:
    """The scores of every subset for which there are examples, in the order of `subsets`. Raises as `evaluate`."""
    model.eval()
    for subset in subsets(set(model.modalities) & set(examples.modalities)):
        complete = torch.stack([examples.has(m) for m in subset]).all(0)
        scores, targets = list[Tensor](), list[Tensor]()
        for batch in batches(examples.rows(complete), batch_size, model.device):
            found = task.scores(model.predict(batch.only(subset)).cpu())
            if not found.isfinite().all():
                raise TrainingError("training diverged: predictions are not finite; a lower train.lr may help")
            scores.append(found)
            targets.append(batch.labels.cpu().double())
        if scores:
            yield Scored(subset_name(subset), torch.cat(scores).numpy(), torch.cat(targets).numpy())
