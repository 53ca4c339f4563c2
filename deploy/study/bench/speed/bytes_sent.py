"""Bytes per round of a client with one modality, compared with sending the whole model."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from flwr.app import Message, RecordDict

from client.site import Site
from common.blocks import Params, get_params, select
from common.build import build_model
from common.exchange import wire
from common.split.make import client_name, make_shards
from deploy.engines.in_process import InProcessGrid
from deploy.study.bench.speed.measurement import Goal, Measurement, Sample
from deploy.study.bench.speed.workload import digits
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation


class CountingSite(Site):
    """A site that counts the bytes of the parameters that it receives and sends."""

    values = 0

    def answer(self, message: Message) -> RecordDict:
        """Answer a message, and count both directions."""
        reply = super().answer(message)
        for content in (message.content, reply):
            if wire.PARAMS in content.array_records:
                self.values += value_bytes(wire.unpack(content.array_records[wire.PARAMS]))
        return reply


class Bytes(Measurement):
    """Bytes of parameter values in real messages, in both directions. Names and figures do not count, because every
    client sends them."""

    name: ClassVar[str] = "bytes"
    what: ClassVar[str] = "bytes per round of an audio-only client; stock: the whole model"
    unit: ClassVar[str] = "bytes"
    ratio: ClassVar[str] = "ours / (stock x its share of blocks)"
    goal: ClassVar[Goal] = Goal("exactly", 1)

    def samples(self, repeats: int, work: Path) -> Iterator[Sample]:
        """Yield one sample, because the count is exact."""
        data = {"set": {"name": "digits-mini"}, "clients": 2, "limit": 40, "validation": 0.0}
        chosen = digits(2, 1, 20, data={**data, "missing": {"unimodal_clients": {"audio": 0.5}}})
        make_shards(chosen, work / "shards")
        sites = [CountingSite(work / "shards" / client_name(index)) for index in range(2)]
        Federation(chosen, InProcessGrid(sites), None, RunFolder(work / "run", chosen)).run()
        audio = next(site for site in sites if site.shard().info.modalities == ["audio"])
        params = get_params(build_model(chosen, 10))
        whole, share = 2 * value_bytes(params), value_bytes(select(params, ["audio"])) / value_bytes(params)
        yield Sample(whole, audio.values, audio.values / (whole * share))


def value_bytes(params: Params) -> int:
    """The bytes of the parameters as float32."""
    return sum(value.numel() for value in params.values()) * torch.float32.itemsize
