"""The encoders of an experiment that will use a shard."""

from client.tables import description
from common.build import build_model
from common.config.experiment import Experiment
from common.config.tables import with_columns, without_columns
from common.data.shard import Shard
from common.encoders.base import Encoder
from common.modality import Modality
from server.aggregation.columns import agree

NO_TABLE = {"none": {"type": "category", "values": ["none"]}}
"""The columns of a table that the shard does not have."""


def encoders_of(experiment: Experiment, shard: Shard) -> dict[Modality, Encoder]:
    """The encoders by modality. Where the federation has not agreed on columns yet, those of this shard count."""
    model = build_model(_with_own_columns(experiment, shard), len(shard.info.classes))
    return {modality: model.encoder(modality) for modality in model.modalities}


def _with_own_columns(experiment: Experiment, shard: Shard) -> Experiment:
    own = {}
    for modality in without_columns(experiment):
        told = {"here": description(shard.columns.get(modality, {}), shard.records, modality, fewest=1)}
        agreed = {name: column.model_dump(mode="json") for name, column in agree(told)[0].items()}
        own[modality] = agreed or NO_TABLE  # the shard has no values that the encoder would read
    return with_columns(experiment, own) if own else experiment
