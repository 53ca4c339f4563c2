"""The loss of a prediction: cross entropy with label smoothing and class weights.

C. Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016,
https://arxiv.org/abs/1512.00567, section 7, for label smoothing. `inverse` weights are the "balanced" weights of
scikit-learn: G. King, L. Zeng, "Logistic Regression in Rare Events Data", Political Analysis 9(2), 2001,
https://doi.org/10.1093/oxfordjournals.pan.a004868.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from common.config.experiment import Experiment


class Criterion:
    """Cross entropy of logits u [B, K] and labels y [B], with class weights w and label smoothing s:

        sum_i [(1 - s) w_yi l_i,yi + (s / K) sum_c w_c l_i,c] / sum_i w_yi,    l_i,c = -log softmax(u_i)[c]

    weights: w [K] on the device of the model; None: 1 for every class, so the loss is a mean over the rows.
    """

    def __init__(self, weights: Tensor | None = None, smoothing: float = 0.0) -> None:
        self._weights, self._smoothing = weights, smoothing
        self._factor: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        loss = F.cross_entropy(logits, labels, self._weights, label_smoothing=self._smoothing)
        return loss if self._factor is None else loss * self._factor

    @contextmanager
    def part(self, labels: Tensor, whole: Tensor) -> Iterator[None]:
        """A context for one part of a batch that is computed in parts. labels: those of the part [b]; whole: those of
        the batch [B].

        The loss of a part is scaled so that the mean of the parts' losses, weighted by their numbers of rows, is the
        loss of the batch. Without the factor it would be another one, because a part's weights have another mean.
        """
        if self._weights is not None and len(labels) < len(whole):
            self._factor = self._weights[labels].mean() / self._weights[whole].mean()
        try:
            yield
        finally:
            self._factor = None


def criterion_of(experiment: Experiment, labels: Tensor, classes: Sequence[str], device: torch.device) -> Criterion:
    """The criterion of a client's round. labels: those of the client's training examples [N].

    Raises ConfigError when the experiment weights a class that does not exist.
    """
    experiment.check_classes(classes)
    given = experiment.train.class_weights
    weights = None
    if given is not None:
        named = inverse_shares(labels, len(classes)) if given == "inverse" else _by_class(given, classes)
        weights = named.to(device)
    return Criterion(weights, experiment.train.label_smoothing)


def inverse_shares(labels: Tensor, classes: int) -> Tensor:
    """Weights [K]: w_c = N / (K' n_c), for n_c of N labels and K' classes with labels. The mean weight of the labels is
    1. A class without labels has the weight 1, which only label smoothing uses."""
    counts = torch.bincount(labels.cpu(), minlength=classes)
    balanced = len(labels) / (counts.count_nonzero() * counts.clamp_min(1))
    return torch.where(counts > 0, balanced, 1.0)


def _by_class(given: dict[str, float], classes: Sequence[str]) -> Tensor:
    return torch.tensor([given.get(name, 1.0) for name in classes])
