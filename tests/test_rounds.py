"""Rounds that end: sites that are late, leave, come back under another id or with other modalities."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import experiment
from flwr.app import Error, Message
from flwr.proto.node_pb2 import NodeInfo
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from client.site import Site
from common import types
from common.errors import ConfigError, RunError, ShardError
from common.exchange import wire
from deploy.engines.in_process import InProcessGrid
from server.record.run_folder import RunFolder
from server.rounds import federation as federation_module
from server.rounds.federation import Federation
from server.strategies.fedcmi import FedCMIStrategy

QUICK: dict[str, Any] = {"federation__wait_seconds": 0.5, "federation__round_seconds": 0.3}


class UnreliableGrid(InProcessGrid):
    """Nodes that are offline are not listed; what silent ones are asked waits until they are silent no more."""

    def __init__(self, *folders: Path, then: Callable[["UnreliableGrid", Message], None] = lambda *_: None) -> None:
        super().__init__([Site(folder) for folder in folders])
        self.offline: set[int] = set()
        self.silent: set[int] = set()
        self.keys: dict[int, bytes] = {}
        self.names: dict[int, str] = {}
        self.trained: list[tuple[int, int]] = []
        self._then = then

    def get_nodes(self) -> Iterable[NodeInfo]:
        listed = [node for node in self.sites if node not in self.offline]
        return [NodeInfo(node_id=n, public_key=self.keys.get(n, b""), name=self.names.get(n, "")) for n in listed]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            if message.metadata.message_type == "train":
                self.trained.append((wire.read_body(message)["round"], message.metadata.dst_node_id))
            self._then(self, message)
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        away = self.silent | self.offline
        free = [name for name in message_ids if self._waiting[name].metadata.dst_node_id not in away]
        return super().pull_messages(free)


def federation(grid: UnreliableGrid, shards: Path, folder: Path, **changes: Any) -> Federation:
    chosen = experiment(**{**QUICK, **changes})
    return Federation(chosen, grid, shards / "test", RunFolder(folder, chosen))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()][1:]


def full_shard(shards: Path) -> Path:
    """The client of the two that holds both modalities."""
    both = shards / "client-0", shards / "client-1"
    return next(shard for shard in both if "image_file" in (shard / "metadata.jsonl").read_text())


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(federation_module, "LOOK_SECONDS", 0.01)


def test_a_late_site_is_not_sampled_until_it_has_answered(tiny_shards: Path, tmp_path: Path) -> None:
    def late_in_round_1_until_round_3(grid: UnreliableGrid, message: Message) -> None:
        number = wire.read_body(message).get("round")
        if number == 1:
            grid.silent.add(11)
        if number == 3:
            grid.silent.clear()

    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1", then=late_in_round_1_until_round_3)
    federation(grid, tiny_shards, tmp_path, federation__min_replies=1, federation__rounds=4).run()
    assert Counter(grid.trained) == Counter([(1, 10), (1, 11), (2, 10), (3, 10), (4, 10), (4, 11)])
    first, second, _, last = lines(tmp_path)
    assert first["failed"] == {"client-1": "no reply within 0.3 s"}
    assert set(second["clients"]) == {"client-0"} and second["seconds"]["total"] < 0.3 + first["seconds"]["total"]
    assert set(last["clients"]) == {"client-0", "client-1"}


def test_a_round_is_asked_again_and_good_replies_are_kept(tiny_shards: Path, tmp_path: Path) -> None:
    def slow_once(grid: UnreliableGrid, message: Message) -> None:
        asked = grid.trained.count((1, 11))
        grid.silent = {11} if asked == 1 and message.metadata.message_type == "train" else set()

    folders = tiny_shards / "client-0", tiny_shards / "client-1"
    grid = UnreliableGrid(*folders, then=slow_once)
    federation(grid, tiny_shards, tmp_path / "retried", federation__rounds=1).run()
    assert Counter(grid.trained) == Counter({(1, 10): 1, (1, 11): 2})
    (line,) = lines(tmp_path / "retried")
    assert (line["attempts"], line["failed"]) == (2, {})
    federation(UnreliableGrid(*folders), tiny_shards, tmp_path / "smooth", federation__rounds=1).run()
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("retried", "smooth"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_too_few_replies_end_the_run_with_the_names_of_the_missing(tiny_shards: Path, tmp_path: Path) -> None:
    def gone_in_round_2(grid: UnreliableGrid, message: Message) -> None:
        if wire.read_body(message).get("round") == 2:
            grid.offline.add(11)

    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1", then=gone_in_round_2)
    run = federation(grid, tiny_shards, tmp_path)
    with pytest.raises(RunError, match=r"round 2: too few usable replies: 1 received.*\n  - client-1: no reply within"):
        run.run()
    assert run.summary()["missing"].keys() == {"client-1"}
    assert run.summary()["rounds"] == 1


def test_expected_sites_are_named_while_they_are_missing(tiny_shards: Path, tmp_path: Path) -> None:
    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1")
    run = federation(grid, tiny_shards, tmp_path, federation__sites=["client-0", "south"], federation__wait_seconds=1.0)
    with pytest.raises(RunError, match=r"south: it has not connected yet"):
        run.run()
    assert run.summary()["refused"] == {"client-1": "federation.sites does not list it"}
    assert "1 of 2 sites are ready: client-0; missing: south" in run.roster.in_words(2)
    with pytest.raises(ConfigError, match=r"federation.sites names 1 sites, but data.clients is 2"):
        experiment(federation__sites=["north", "north"])


def test_the_first_site_to_come_does_not_name_the_classes_for_all(tiny_shards: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(tiny_shards / "client-0", odd)
    info = json.loads((odd / "shard.json").read_text())
    (odd / "shard.json").write_text(json.dumps(info | {"classes": [f"other {name}" for name in info["classes"]]}))
    lines_of = [json.loads(line) for line in (odd / "metadata.jsonl").read_text().splitlines()]
    said = "".join(json.dumps(one | {"label": f"other {one['label']}"}) + "\n" for one in lines_of)
    (odd / "metadata.jsonl").write_text(said)
    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1")
    grid.sites = {9: Site(odd, "a-first"), 10: Site(tiny_shards / "client-0"), 11: Site(tiny_shards / "client-1")}
    chosen = experiment(data__clients=3, federation__wait_seconds=5.0)
    run = Federation(chosen, grid, None, RunFolder(tmp_path / "run", chosen))
    run.run()
    assert "its classes differ from the federation's" in run.summary()["refused"]["a-first"]
    assert set(run.summary()["sites"]) == {"client-0", "client-1"}
    named = experiment(data__classes=["x", "y"], federation__wait_seconds=1.0)
    with pytest.raises(RunError, match="its classes differ from the federation's"):
        Federation(named, grid, None, RunFolder(tmp_path / "named", named)).run()
    with pytest.raises(ShardError, match=r"differ from data\.classes"):
        Federation(named, grid, tiny_shards / "test", RunFolder(tmp_path / "tested", named))


def test_waiting_for_nodes_has_an_end(tiny_shards: Path, tmp_path: Path) -> None:
    grid = UnreliableGrid(tiny_shards / "client-0")
    with pytest.raises(RunError, match=r"1 more possible within 0.5 s, needed: 2"):
        federation(grid, tiny_shards, tmp_path).run()


def test_a_site_that_returns_under_another_id_is_the_same_site(tiny_shards: Path, tmp_path: Path) -> None:
    def moves_in_round_2(grid: UnreliableGrid, message: Message) -> None:
        if wire.read_body(message).get("round") == 2 and 12 not in grid.sites:
            grid.silent.add(11)  # killed, but still listed as Flower does for a minute
            grid.sites[12] = Site(tiny_shards / "client-1")
        if message.metadata.message_type == "query" and 12 in grid.sites:
            grid.offline.add(11)

    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1", then=moves_in_round_2)
    run = federation(grid, tiny_shards, tmp_path, federation__rounds=3)
    run.run()
    assert [node for number, node in grid.trained if number == 3] == [10, 12]
    assert all(set(line["clients"]) == {"client-0", "client-1"} for line in lines(tmp_path))
    assert (run.summary()["refused"], run.summary()["missing"]) == ({}, {})


def test_a_name_belongs_to_the_key_that_first_came_with_it(tiny_shards: Path, tmp_path: Path) -> None:
    def impostor_in_round_2(grid: UnreliableGrid, message: Message) -> None:
        if wire.read_body(message).get("round") == 2 and 12 not in grid.sites:
            grid.offline.add(11)
            grid.sites[12], grid.keys[12] = Site(tiny_shards / "client-1"), b"another"

    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1", then=impostor_in_round_2)
    grid.keys = {10: b"zero", 11: b"one"}
    run = federation(grid, tiny_shards, tmp_path, federation__min_replies=1, federation__rounds=4)
    run.run()
    assert run.summary()["refused"] == {"client-1 (node 12)": "this name belongs to another key"}
    assert 12 not in {node for _, node in grid.trained}
    assert run.roster.keys == {"client-0": b"zero".hex(), "client-1": b"one".hex()}


@pytest.mark.parametrize("registered", [False, True])
def test_a_resumed_run_remembers_registered_keys_only(tiny_shards: Path, tmp_path: Path, registered: bool) -> None:
    """A node without a key of its own has another key after each start."""
    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1")
    grid.keys = {10: b"zero", 11: b"one"}
    grid.names = {10: "client-0", 11: "client-1"} if registered else {}
    before, after = (federation(grid, tiny_shards, tmp_path / when) for when in ("before", "after"))
    for _ in range(2):
        before.roster.look(grid)
    after.roster.restore(json.loads(json.dumps(before.roster.state())))
    grid.sites, grid.names = {20: grid.sites[10], 21: grid.sites[11]}, {}
    grid.keys = {20: b"new zero", 21: b"new one"}
    for _ in range(2):
        after.roster.look(grid)
    refusal = "this name belongs to another key"
    refused = {"client-0 (node 20)": refusal, "client-1 (node 21)": refusal} if registered else {}
    assert after.roster.refused == refused
    assert {site.name for site in after.roster.free.values()} == (set() if registered else {"client-0", "client-1"})
    assert after.roster.in_words(2).endswith(f"client-1 (node 21) ({refusal})") == registered


def test_a_name_belongs_to_the_key_that_was_registered_with_it(tiny_shards: Path, tmp_path: Path) -> None:
    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1")
    honest = {11: Site(tiny_shards / "client-0", "a"), 12: Site(tiny_shards / "client-1", "b")}
    grid.sites = {10: Site(tiny_shards / "client-1", "b"), **honest}
    grid.keys = {10: b"stranger", 11: b"a", 12: b"b"}
    grid.names = {10: "stranger", 11: "a", 12: "b"}
    run = federation(grid, tiny_shards, tmp_path)
    run.run()
    assert run.summary()["refused"] == {"b (node 10)": "this name belongs to another key"}
    assert {node for _, node in grid.trained} == {11, 12}


def test_a_registered_name_waits_for_its_owner(tiny_shards: Path, tmp_path: Path) -> None:
    """While the owner's node is away, another key does not get its name, nor a second one for itself."""
    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1")
    grid.sites = {10: Site(tiny_shards / "client-0", "a"), 11: Site(tiny_shards / "client-1", "b"),
                  12: Site(tiny_shards / "client-1", "b")}  # fmt: skip
    grid.keys, grid.names = {10: b"a", 11: b"b", 12: b"evil"}, {10: "a", 11: "b", 12: "evil"}
    run = federation(grid, tiny_shards, tmp_path)
    run.roster.look(grid)
    run.roster.look(grid)
    assert {site.name: node for node, site in run.roster.free.items()} == {"a": 10, "b": 11}
    assert "b (node 12)" in run.roster.refused
    grid.offline.add(11)
    grid.sites[13] = Site(tiny_shards / "client-1", "b")
    grid.keys[13], grid.names[13] = b"evil2", "evil2"
    for _ in range(3):
        run.roster.look(grid)
    grid.offline.clear()
    for _ in range(3):
        run.roster.look(grid)
    assert {site.name: node for node, site in run.roster.free.items()} == {"a": 10, "b": 11}


def test_a_key_has_one_name_and_a_refusal_is_nobody_elses(tiny_shards: Path, tmp_path: Path) -> None:
    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1")
    grid.keys = {10: b"one", 11: b"two"}
    run = federation(grid, tiny_shards, tmp_path)
    run.roster.look(grid)
    run.roster.look(grid)
    assert len(run.roster.free) == 2
    grid.sites[12], grid.keys[12] = Site(tiny_shards / "client-1", "another"), b"two"
    for _ in range(2):
        run.roster.look(grid)
    assert run.roster.refused == {"another (node 12)": "this name belongs to another key"}
    grid.sites[13] = Site(tmp_path / "no such shard", "client-0")
    for _ in range(2):
        run.roster.look(grid)
    assert "client-0" not in run.roster.refused and "client-0 (node 13)" in run.roster.refused


def test_a_site_may_come_back_with_other_modalities(tiny_shards: Path, tmp_path: Path) -> None:
    before, now = tmp_path / "before", full_shard(tiny_shards)
    shutil.copytree(now, before)
    examples = [json.loads(line) for line in (before / "metadata.jsonl").read_text().splitlines()]
    left = [json.dumps({k: v for k, v in one.items() if k != "image_file_name"}) for one in examples]
    (before / "metadata.jsonl").write_text("\n".join(left))
    info = json.loads((before / "shard.json").read_text())
    (before / "shard.json").write_text(json.dumps(info | {"modalities": ["audio"]}))

    def grows_in_round_2(grid: UnreliableGrid, message: Message) -> None:
        if wire.read_body(message).get("round") == 2:
            grid.sites[11] = Site(now, "b")

    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1", then=grows_in_round_2)
    grid.sites = {10: Site(now, "a"), 11: Site(before, "b")}
    run = federation(grid, tiny_shards, tmp_path / "run")
    run.run()
    first, second = lines(tmp_path / "run")
    assert first["clients"]["b"]["modalities"] == ["audio"]
    assert second["clients"]["b"]["modalities"] == ["audio", "image"]
    assert second["attempts"] == 2


def test_a_site_whose_process_dies_at_every_question_is_asked_three_times(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []
    grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1",
                          then=lambda _, m: asked.append(m.metadata.dst_node_id))  # fmt: skip
    answer = grid._answer

    def answer_or_die(message: Message) -> Message:
        if message.metadata.dst_node_id != 11:
            return answer(message)
        reply = Message(Error(code=8, reason="ClientApp stopped responding"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 1
        return reply

    monkeypatch.setattr(grid, "_answer", answer_or_die)
    with caplog.at_level(logging.WARNING), pytest.raises(RunError, match="stopped responding"):
        federation(grid, tiny_shards, tmp_path, federation__wait_seconds=100.0).run()
    assert asked.count(11) == 3


class TestSample:
    @staticmethod
    def strategy(held: list[set[str]], **changes: Any) -> FedCMIStrategy:
        made = FedCMIStrategy(experiment(data__clients=max(2, len(held)), **changes))
        for index, modalities in enumerate(held):
            made.sites[index] = types.Site(f"s{index}", frozenset(modalities), ("x", "y"), 5, {})
        made._round = 1
        return made

    @given(
        held=st.lists(st.sampled_from([{"audio"}, {"image"}, {"audio", "image"}]), min_size=3, max_size=12),
        seed=st.integers(0, 1000),
        audio=st.integers(1, 3),
        image=st.integers(1, 3),
    )
    def test_it_has_the_holders_that_a_round_needs(
        self, held: list[set[str]], seed: int, audio: int, image: int
    ) -> None:
        made = self.strategy(
            held, seed=seed, federation__sample=3, federation__min_holders={"audio": audio, "image": image}
        )
        chosen = made.sample()
        for modality, count in (("audio", audio), ("image", image)):
            holders = {i for i, have in enumerate(held) if modality in have}
            assert len(holders & set(chosen)) >= min(count, len(holders))
        assert len(chosen) == len(set(chosen)) >= min(3, len(held))
        possible = all(sum(m in have for have in held) >= n for m, n in (("audio", audio), ("image", image)))
        assert made.can_satisfy() == possible

    def test_a_round_without_the_holders_it_needs_ends_the_run(self, tiny_shards: Path, tmp_path: Path) -> None:
        grid = UnreliableGrid(tiny_shards / "client-0", tiny_shards / "client-1")
        with pytest.raises(RunError, match="modality image needs 2 more"):
            federation(grid, tiny_shards, tmp_path, federation__min_holders={"image": 2}).run()

    def test_impossible_numbers_are_mistakes_of_the_config(self) -> None:
        with pytest.raises(ConfigError) as caught:
            experiment(federation__min_holders={"audio": 9, "smell": 1}, federation__min_replies=5)
        assert all(text in str(caught.value) for text in ("min_holders.audio is 9", "smell", "min_replies is 5"))
