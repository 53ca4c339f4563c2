"""Adds the adapters of a model to the weights of their layers, so that the model needs no adapters any more."""

from common.encoders.shared.tower_options import ALL
from common.encoders.shared.trained_tower import TrainedTower
from common.errors import ModelError
from common.models.base import MultimodalModel
from common.trained.saved_model import Description


def merge(model: MultimodalModel, description: Description) -> Description:
    """Merge all adapters of a model, in place. Returns the description of the merged model, whose parameters contain
    all weights of the adapted encoders.

    Raises ModelError when the model has no adapters.
    """
    encoders = dict(description.model.encoders)
    every = {modality: model.encoder(modality) for modality in model.modalities}
    adapted = {m: one for m, one in every.items() if isinstance(one, TrainedTower) and one.has_adapters}
    if not adapted:
        raise ModelError("the model has no adapters to merge: no encoder has `train: lora`")
    for modality, encoder in adapted.items():
        merged = encoder.merge().train(encoder.training)
        model.branches[modality].register_module("encoder", merged.requires_grad_(False))
        encoders[modality] = {**encoders[modality], "train": ALL, "lora": None}
    changed = description.model.model_copy(update={"encoders": encoders})
    return description.model_copy(update={"model": changed})
