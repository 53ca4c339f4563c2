"""Aggregate once and print the peak resident memory in kilobytes. Arguments: stock|ours CLIENTS MEGABYTES FOLDER."""

import resource
import sys
from pathlib import Path
from typing import Any

import torch
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from client.request import read_body, read_request
from client.site import Site
from common.config.reading import parse
from common.exchange import wire
from deploy.engines.in_process import InProcessGrid, claim_identity
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation

CLASSES = [str(index) for index in range(10)]


class Echo(Site):
    """A site without examples that returns a copy of the received parameters."""

    def answer(self, message: Message) -> RecordDict:
        """An introduction, or a copy of the received parameters."""
        name = f"echo-{message.metadata.dst_node_id}"
        said: dict[str, Any] = {"site": name, "modalities": ["signal"], "classes": CLASSES, "num_examples": 9}
        if message.metadata.message_type == MessageType.QUERY:
            return wire.record(said)
        sent = message.content.array_records[wire.PARAMS][wire.PARAMS]
        copied = Array(sent.dtype, sent.shape, sent.stype, bytes(bytearray(sent.data)))
        said["round"] = read_request(read_body(message), training=True).round
        return wire.record(said, ArrayRecord({wire.PARAMS: copied}))


def ours(clients: int, megabytes: int, folder: Path) -> None:
    """Run a round over a model with one large layer."""
    raw = {
        "name": "bench-memory",
        "data": {"clients": clients},
        "model": {"encoders": {"signal": {"name": "signal", "width": megabytes * 1_000_000 // (4 * 266)}}},
        "method": "fedavg",
        "train": {"lr": 0.1},
        "federation": {"rounds": 1},
    }
    chosen = parse(raw, "bench speed")
    sites = [Echo(folder) for _ in range(clients)]
    Federation(chosen, InProcessGrid(sites), None, RunFolder(folder, chosen)).run()


def stock(clients: int, megabytes: int) -> None:
    """Run Flower's FedAvg over the same number of bytes."""
    claim_identity()
    state = {"weight": torch.zeros(megabytes * 1_000_000 // 4)}
    replies = []
    for node in range(clients):
        asked = Message(RecordDict(), dst_node_id=node, message_type="train")
        metrics = MetricRecord({"num-examples": 9})
        replies.append(Message(RecordDict({"arrays": ArrayRecord(state), "metrics": metrics}), reply_to=asked))
    FedAvg().aggregate_train(1, replies)


if __name__ == "__main__":
    kind, clients, megabytes, folder = sys.argv[1:]
    if kind == "stock":
        stock(int(clients), int(megabytes))
    else:
        ours(int(clients), int(megabytes), Path(folder))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
