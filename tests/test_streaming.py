"""Replies are folded in as they come: any order gives the same bits, and few are held at a time."""

import gc
import json
import sys
import time
import weakref
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from conftest import experiment
from flwr.app import Error, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    inflate_object_from_contents,
    pull_objects,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from client.site import Site
from common.exchange import wire
from deploy.engines.in_process import InProcessGrid, claim_identity
from server.aggregation.block_mean import BlockMean
from server.clients.exchange import AT_ONCE, exchange
from server.clients.uploads import UNSENT, uploads
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation
from server.strategies.fedcmi import FedCMIStrategy

VALUES = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)


@given(st.lists(st.tuples(VALUES, st.integers(1, 10**6)), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_mean_is_exact_and_does_not_depend_on_the_order(clients: list[tuple[float, int]], random: object) -> None:
    exact = sum(Fraction(value) * weight for value, weight in clients) / sum(weight for _, weight in clients)
    results = []
    for _ in range(3):
        mean = BlockMean()
        for value, weight in clients:
            mean.add({"w": torch.tensor([value])}, {"shared": float(weight)})
        results.append(mean.result({"w": torch.zeros(1)})["w"])
        random.shuffle(clients)  # type: ignore[attr-defined]
    assert all(torch.equal(results[0], other) for other in results[1:])
    largest = max(abs(value) for value, _ in clients)
    assert abs(Fraction(float(results[0])) - exact) <= abs(exact) * Fraction(2) ** -23 + Fraction(largest) / 2**90


class CountingGrid(InProcessGrid):
    """Remembers how many replies were asked for at a time."""

    asked: list[int]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        names = list(message_ids)
        self.asked = [*getattr(self, "asked", []), len(names)]
        return super().pull_messages(names)


def test_few_replies_are_fetched_at_a_time(tiny_shards: Path) -> None:
    grid = CountingGrid([Site(tiny_shards / "client-0", f"s{index}") for index in range(9)])
    strategy = FedCMIStrategy(experiment(data__clients=9))
    strategy.roster.look(grid)
    grid.asked = []
    content = wire.record({"experiment": experiment().to_json()})
    messages = [Message(content, dst_node_id=node, message_type="query") for node in grid.sites]
    assert len(list(exchange(grid, messages, 5))) == 9
    assert grid.asked == [AT_ONCE, AT_ONCE, 1]


class AnnouncingGrid:
    """As Flower's grid pulls: the replies of a call one after the other, through its module's `pull_objects`."""

    def __init__(self, replies: dict[str, RecordDict], missing: dict[str, int]) -> None:
        self.replies, self.missing, self.asked = replies, missing, Counter[str]()

    def push_messages(self, messages: list[Message]) -> list[str]:
        self.messages = {message.metadata.group_id: message for message in messages}
        return list(self.messages)

    def pull_messages(self, names: Iterable[str]) -> list[Message]:
        came = []
        for name in [name for name in names if name in self.messages]:
            asked = self.messages.pop(name)
            asked.metadata.__dict__["_message_id"] = name
            reply = Message(self.replies[name], reply_to=asked)
            parts = get_all_nested_objects(reply)
            contents = {part: value.deflate() for part, value in parts.items()}

            def pull(part: str, name: str = name, contents: dict[str, bytes] = contents) -> bytes:
                self.asked[name] += 1
                if self.missing.get(name, 0) and self.asked[name] <= self.missing[name]:
                    raise ObjectUnavailableError(part)
                return contents[part]

            try:
                found = pull_objects(list(parts), pull)
            except ObjectPullError as error:
                came.append(Message(Error(code=17, reason=f"unavailable: {error}"), reply_to=asked))
            else:
                came.append(inflate_object_from_contents(list(parts)[-1], found))
        return came


def test_a_reply_that_is_announced_and_never_sent_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[__name__]
    monkeypatch.setattr(module, "pull_objects", pull_objects)  # put back at the end
    claim_identity()
    replies = {name: wire.record({"from": name}) for name in ("stalled", "honest", "slow")}
    grid = AnnouncingGrid(replies, {"stalled": 10**9, "slow": 6})
    messages = [Message(wire.record({}), dst_node_id=node, message_type="query", group_id=name)
                for node, name in enumerate(replies)]  # fmt: skip
    started, came = time.monotonic(), {}
    for reply in exchange(grid, messages, 6.0):  # type: ignore[arg-type]
        came[reply.node] = reply, time.monotonic() - started
    assert wire.read_body(came[1][0].message) == {"from": "honest"}  # type: ignore[arg-type]
    assert came[1][1] < came[2][1] < came[0][1]
    assert wire.read_body(came[2][0].message) == {"from": "slow"}  # type: ignore[arg-type]
    assert came[0][0].message is None and came[0][0].error in (UNSENT, "no reply within 6 s")
    assert came[0][1] < 60  # Flower alone would wait for two hours


def test_a_grid_that_nobody_needs_is_let_go(tiny_shards: Path) -> None:
    grid = CountingGrid([Site(tiny_shards / "client-0")])
    assert len(list(uploads(grid).pull([]))) == 0
    gone = weakref.ref(grid)
    del grid
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_differences_give_the_same_model_and_more_exactly_in_bfloat16(
    dtype: str, tiny_shards: Path, tmp_path: Path
) -> None:
    models = {}
    for name, changes in {
        "exact": {},
        "whole": {"wire__dtype": dtype},
        "delta": {"wire__dtype": dtype, "wire__delta": True},
    }.items():
        chosen = experiment(federation__rounds=1, **changes)
        grid = InProcessGrid([Site(tiny_shards / "client-0"), Site(tiny_shards / "client-1")])
        Federation(chosen, grid, tiny_shards / "test", RunFolder(tmp_path / name, chosen)).run()
        models[name] = load_file(tmp_path / name / "model.safetensors")
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines()[1] for name in ("whole", "delta")]
    sizes = [json.loads(line)["bytes_up"] for line in lines]
    assert abs(sizes[0] - sizes[1]) < 200  # of the figures
    error = {
        name: sum(float((models[name][key] - value).abs().sum()) for key, value in models["exact"].items())
        for name in ("whole", "delta")
    }
    if dtype == "float32":
        assert error["delta"] < 1e-2
    else:
        assert error["delta"] < error["whole"] / 3
