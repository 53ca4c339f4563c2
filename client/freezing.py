"""Which parts of a model are trained in a round."""

from collections.abc import Iterable

from common.config.experiment import Train
from common.modality import Modality
from common.models.base import MultimodalModel


def freeze_unheld(model: MultimodalModel, held: frozenset[Modality]) -> None:
    """Freeze the blocks of modalities that a client does not hold."""
    for modality in model.modalities:
        model.branches[modality].requires_grad_(modality in held)


def frozen_in(settings: Train, number: int) -> list[Modality]:
    """The modalities whose encoders are not trained in a round, in alphabetical order. number: the round, from 1."""
    return sorted(modality for modality, rounds in settings.freeze.items() if number <= rounds)


def freeze_encoders(model: MultimodalModel, frozen: Iterable[Modality]) -> None:
    """Compute no gradients for the encoders of these modalities in the round."""
    for modality in frozen:
        model.encoder(modality).requires_grad_(False)


def train_mode(model: MultimodalModel, frozen: Iterable[Modality]) -> None:
    """Set the model to training. The encoders of `frozen` stay in prediction, because batch normalisation in training
    changes its running statistics."""
    model.train()
    for modality in frozen:
        model.encoder(modality).eval()
