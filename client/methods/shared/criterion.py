"""The loss of a prediction, for each task, with class weights and label smoothing.

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
from common.config.task import MultiLabel, Regression


class Criterion:
    """Single-label: cross entropy of logits u [B, K] and labels y [B], with class weights w and label smoothing s:

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

    def plain(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The same loss without weights and smoothing, a scalar, for comparisons of predictions."""
        return F.cross_entropy(logits, labels)

    def truth(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The probability of the truth in each decision, without gradient. A row is one decision between its classes:
        softmax(u_i)[y_i] [B]."""
        return logits.detach().softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)

    def confidence(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean of `truth` over the decisions of each row [B], without gradient."""
        return self.truth(logits, labels)

    def distillation(self, taught: Tensor, student: Tensor) -> Tensor:
        """By decision, the cross entropy of a teacher's and a student's probabilities, from logits [B, K]:
        -sum_c t_i,c log softmax(student_i)[c] [B], with t = softmax(taught)."""
        return -(taught.softmax(1) * student.log_softmax(1)).sum(1)

    @contextmanager
    def part(self, labels: Tensor, whole: Tensor) -> Iterator[None]:
        """A context for one part of a batch that is computed in parts. labels: those of the part [b]; whole: those of
        the batch [B].

        The loss of a part is scaled so that the mean of the parts' losses, weighted by their numbers of rows, is the
        loss of the batch. Without the factor it would be another one, because a part's weights have another mean.
        """
        self._factor = self._part_factor(labels, whole)
        try:
            yield
        finally:
            self._factor = None

    def _part_factor(self, labels: Tensor, whole: Tensor) -> Tensor | None:
        if self._weights is None or len(labels) == len(whole):
            return None
        return self._weights[labels].mean() / self._weights[whole].mean()


class BinaryCrossEntropy(Criterion):
    """Multi-label: the mean over rows and labels of the binary cross entropy of logits u [B, K] and labels y [B, K], 0
    or 1, with weights w of present labels and label smoothing s:

        -(1 / BK) sum_i sum_k [w_k y'_ik log sigmoid(u_ik) + (1 - y'_ik) log(1 - sigmoid(u_ik))],
        y' = (1 - s) y + s / 2
    """

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        smoothed = labels * (1 - self._smoothing) + self._smoothing / 2 if self._smoothing else labels
        return F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=self._weights)

    def plain(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The same loss without weights and smoothing, a scalar."""
        return F.binary_cross_entropy_with_logits(logits, labels)

    def truth(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Each label of a row is one decision [B, K]: sigmoid(u_ik) if label k applies, else 1 - sigmoid(u_ik). Without
        gradient."""
        probability = logits.detach().sigmoid()
        return torch.where(labels > 0.5, probability, 1 - probability)

    def confidence(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean of `truth` over the labels of each row [B], without gradient."""
        return self.truth(logits, labels).mean(1)

    def distillation(self, taught: Tensor, student: Tensor) -> Tensor:
        """-t_ik log sigmoid(student_ik) - (1 - t_ik) log(1 - sigmoid(student_ik)) [B, K], with t = sigmoid(taught)."""
        return F.binary_cross_entropy_with_logits(student, taught.sigmoid(), reduction="none")

    def _part_factor(self, labels: Tensor, whole: Tensor) -> Tensor | None:
        return None  # the loss is a mean over the rows, also with weights


class SquaredError(Criterion):
    """Regression: the mean over rows and targets of (u - (y - mean) / std)^2, for outputs u [B, K] and values y [B, K].
    mean, std: [K] on the device of the model."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self._mean, self._std = mean, std

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar."""
        return F.mse_loss(logits, (labels - self._mean) / self._std)

    def plain(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The same."""
        return self(logits, labels)

    def truth(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Not defined, and nor is `confidence`, because the outputs are not probabilities.

        Raises NotImplementedError.
        """
        raise NotImplementedError("a regression has no probabilities")

    def distillation(self, taught: Tensor, student: Tensor) -> Tensor:
        """Not defined.

        Raises NotImplementedError.
        """
        raise NotImplementedError("a regression has no probabilities")


def criterion_of(experiment: Experiment, labels: Tensor, classes: Sequence[str], device: torch.device) -> Criterion:
    """The criterion of a client's round. labels: those of the client's training examples [N] or [N, K].

    Raises ConfigError when an option names a class that does not exist.
    """
    experiment.check_classes(classes)
    task, smoothing = experiment.task, experiment.train.label_smoothing
    if isinstance(task, Regression):
        mean, std = [task.mean.get(name, 0.0) for name in classes], [task.std.get(name, 1.0) for name in classes]
        return SquaredError(torch.tensor(mean, device=device), torch.tensor(std, device=device))
    given, weights = experiment.train.class_weights, None
    if given == "inverse":
        weights = inverse_odds(labels) if isinstance(task, MultiLabel) else inverse_shares(labels, len(classes))
    elif given is not None:
        weights = torch.tensor([given.get(name, 1.0) for name in classes])
    kind = BinaryCrossEntropy if isinstance(task, MultiLabel) else Criterion
    return kind(None if weights is None else weights.to(device), smoothing)


def inverse_shares(labels: Tensor, classes: int) -> Tensor:
    """Weights [K]: w_c = N / (K' n_c), for n_c of N labels and K' classes with labels. The mean weight of the labels is
    1. A class without labels has the weight 1, which only label smoothing uses."""
    counts = torch.bincount(labels.cpu(), minlength=classes)
    balanced = len(labels) / (counts.count_nonzero() * counts.clamp_min(1))
    return torch.where(counts > 0, balanced, 1.0)


def inverse_odds(labels: Tensor) -> Tensor:
    """Weights [K] of present labels: w_k = absent / present, so that both have the same total weight. labels: [N, K]. A
    label without any present or absent example has the weight 1."""
    present = labels.cpu().sum(0)
    absent = len(labels) - present
    return torch.where((present > 0) & (absent > 0), absent / present.clamp_min(1), 1.0)
