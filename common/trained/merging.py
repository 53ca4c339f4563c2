"""Adds the adapters of a model to the weights of their layers, so that the model needs no adapters any more."""

from common.encoders.shared.tower_options import ALL
from common.encoders.shared.trained_tower import TrainedTower
from common.models.base import MultimodalModel
from common.trained.saved_model import Description


def merge(model: MultimodalModel, description: Description) -> Description:
    """Merge all adapters of a model, in place. Returns the description of the merged model, whose parameters contain
    all weights of the adapted encoders."""
    encoders = dict(description.model.encoders)
    for modality in model.modalities:
        encoder = model.encoder(modality)
        if isinstance(encoder, TrainedTower) and encoder.has_adapters:
            merged = encoder.merge().train(encoder.training)
            model.branches[modality].register_module("encoder", merged.requires_grad_(False))
            encoders[modality] = {**encoders[modality], "train": ALL, "lora": None}
    changed = description.model.model_copy(update={"encoders": encoders})
    return description.model_copy(update={"model": changed})
