"""The linear probe, which measures the quality of an encoder's features in the same way for every method.

G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes", 2016,
https://arxiv.org/abs/1610.01644.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.data.batches import batches
from common.modality import Modality
from common.models.base import MultimodalModel
from common.types import Batch

BATCH = 256


def probe(model: MultimodalModel, modality: Modality, training: Sequence[Batch], test: Batch) -> float | None:
    """The test accuracy of a logistic regression on the frozen encoder's features z_m.

    It is trained on the pooled training examples of all clients with the modality, which is possible only in a
    benchmark. None if no client has the modality.
    """
    parts = [_features(model, part, modality) for part in training if part.has(modality).any()]
    if not parts:
        return None
    inputs, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(inputs, labels)
    return float(classifier.score(*_features(model, test, modality)))


@torch.no_grad()
def _features(
    model: MultimodalModel, examples: Batch, modality: Modality
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    model.eval()
    present = examples.rows(examples.has(modality))
    encoded = torch.cat([model.encode(batch, modality).cpu() for batch in batches(present, BATCH, model.device)])
    return encoded.double().numpy(), present.labels.numpy()
