"""Divides examples among clients with the partitioners of flwr-datasets."""

import warnings
from collections.abc import Sequence

from datasets import Dataset
from flwr_datasets import partitioner as flower

from common.config.experiment import Dirichlet, Iid, LabelShards, Natural, Partition
from common.errors import DataError
from common.seeding import derive, rng


def partition(
    labels: Sequence[str], groups: Sequence[str], clients: int, scheme: Partition, seed: int
) -> list[list[int]]:
    """The sorted indices of each client's examples. Every example belongs to exactly one client.

    There is one exception: label shards have equal sizes, so a remainder of fewer examples than shards is left out.

    Raises DataError when these examples cannot be divided with the scheme.
    """
    if clients > len(labels):
        raise DataError(f"{len(labels)} examples cannot be divided among {clients} clients")
    owners = _owners(groups, clients, scheme, seed)
    order = rng(seed, "order").permutation(len(labels)).tolist()  # the IID partitioner does not shuffle
    table = Dataset.from_dict(
        {"index": order, "label": [labels[i] for i in order], "group": [owners[i] for i in order]}
    )
    divider = _partitioner(scheme, clients, derive(seed, "partition") % 2**32)
    divider.dataset = table
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # from pyarrow, about sorting in `datasets`
            warnings.filterwarnings("ignore", message="The specified min_partition_size")  # flwr-datasets draws again
            parts = [sorted(divider.load_partition(client)["index"]) for client in range(clients)]
    except ValueError as error:
        raise DataError(f"partition {scheme.name}: {' '.join(str(error).split())}") from None
    if empty := [client for client, part in enumerate(parts) if not part]:
        raise DataError(f"partition {scheme.name} leaves clients {empty} without examples")
    return parts


def _partitioner(scheme: Partition, clients: int, seed: int) -> flower.Partitioner:
    match scheme:
        case Iid():
            return flower.IidPartitioner(clients)
        case Dirichlet():
            return flower.DirichletPartitioner(
                clients, "label", scheme.alpha, min_partition_size=scheme.min_examples, seed=seed
            )
        case LabelShards():
            return flower.ShardPartitioner(
                clients, "label", num_shards_per_partition=scheme.shards_per_client, seed=seed
            )
        case Natural():
            return flower.NaturalIdPartitioner("group")


def _owners(groups: Sequence[str], clients: int, scheme: Partition, seed: int) -> list[str]:
    """The owner of each example. Natural ids are shuffled and assigned to as many owners as there are clients, in
    turn."""
    if not isinstance(scheme, Natural):
        return list(groups)
    ids = sorted(set(groups))
    if "" in ids:
        raise DataError("partition natural: the data set has no natural ids")
    if len(ids) < clients:
        raise DataError(f"partition natural: {clients} clients are needed, the data set has {len(ids)} natural ids")
    order = rng(seed, "natural").permutation(len(ids))
    owner = {ids[position]: f"{turn % clients:06d}" for turn, position in enumerate(order)}
    return [owner[group] for group in groups]
