"""What stands in a node's log: its own words, what matters of Flower's, and the rest in a file."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import experiment
from flwr.app import Message, RecordDict
from flwr.supercore.retry.retry_invoker import RetryInvoker

from client.site import Site
from client.words import in_words
from common.exchange import wire
from common.words import node_log
from common.words.units import human
from deploy.engines.in_process import InProcessGrid
from deploy.hosts import supernode
from deploy.hosts.explain import REASONS
from deploy.hosts.supernode import Waits, patient
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation


class Listening(InProcessGrid):
    """Keeps what a site was asked and what it answered."""

    def __init__(self, *folders: Path) -> None:
        super().__init__([Site(folder) for folder in folders])
        self.heard: list[tuple[int, RecordDict, RecordDict]] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for name in message_ids:
            asked = self._waiting[name]
            for reply in super().pull_messages([name]):
                self.heard.append((asked.metadata.dst_node_id, asked.content, reply.content))
                yield reply

    def get_nodes(self) -> Iterable[Any]:
        return [SimpleNamespace(node_id=node, public_key=b"", name="") for node in self.sites]


@pytest.fixture(scope="module")
def words(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lines of client-0 in a run of two rounds."""
    grid, chosen = Listening(tiny_shards / "client-0", tiny_shards / "client-1"), experiment()
    Federation(chosen, grid, None, RunFolder(tmp_path_factory.mktemp("run"), chosen)).run()
    return [in_words(asked, reply, 3.42) for node, asked, reply in grid.heard if node == 10]


def test_the_log_of_a_run_has_a_line_for_each_thing_that_happens(words: list[str], tiny_shards: Path) -> None:
    begun, first, second = words
    lines = (tiny_shards / "client-0" / "metadata.jsonl").read_text().splitlines()
    held = "+".join(json.loads((tiny_shards / "client-0" / "shard.json").read_text())["modalities"])
    count = re.match(r"round 1 of 2: cpu, float32, (\d+) examples, loss ", first)
    assert count and 0 < int(count[1]) < len(lines)  # some are kept for validation
    assert begun == f"a run of tiny begins: introduced as client-0, {len(lines)} examples, {held}"
    assert re.search(r", received [\d.]+ .?B, sent [\d.]+ .?B, 3\.4 s$", first)
    assert second.startswith(f"round 2 of 2: cpu, float32, {count[1]} examples")
    assert second.endswith("; the run has ended for this site")


def test_what_was_sent_is_the_size_of_the_parameters() -> None:
    asked = wire.record({"round": 1, "experiment": "{}"}, wire.pack({"image.w": wire.torch.zeros(250)}))
    reply = wire.record({"num_examples": 3, "losses": {"fused": 0.4321}}, wire.pack({"image.w": wire.torch.zeros(500)}))
    said = in_words(asked, reply, 0.0)
    sizes = [sum(len(a.data) for a in part.array_records["params"].values()) for part in (asked, reply)]
    assert sizes[1] >= 2000 and f"received {human(sizes[0])}, sent {human(sizes[1])}" in said
    assert said.startswith("round 1 of ?: 3 examples, loss fused 0.432,")


@pytest.mark.parametrize("body", ["", "no JSON", "[]", '{"experiment": 5}', '{"experiment": "[[[", "round": "x"}'])
def test_a_message_that_makes_no_sense_is_no_reason_to_fail(body: str) -> None:
    asked = wire.record({})
    next(iter(asked.config_records.values()))["json"] = body
    assert "refused: WireError: no" in in_words(asked, wire.record({"error": "WireError: no"}), 0.0)


def test_what_a_server_sends_writes_no_lines_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    node_log.say("a run of x\n\x1b[2Jerror: all is lost")
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line


def filtered(lines: str, *file: Path) -> list[str]:
    command = [sys.executable, "-m", "deploy.hosts.explain", *map(str, file)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_own_lines_and_errors_are_shown_and_all_of_flowers_are_in_a_file(tmp_path: Path) -> None:
    flowers = ["INFO : Receiving: train message", "ERROR : it broke", "INFO : Sent successfully"]
    own = f"{node_log.MARK}14:02:11 round 1 of 8"
    assert filtered("\n".join([flowers[0], own, *flowers[1:], ""]), tmp_path / "flower.log") == [
        "14:02:11 round 1 of 8", flowers[1],
    ]  # fmt: skip
    assert (tmp_path / "flower.log").read_text().splitlines() == flowers


def test_what_flower_repeats_is_explained_once(tmp_path: Path) -> None:
    tries = "WARNING : Connection attempt failed, retrying in 1.2 seconds\n"
    lines = tries * 3 + "INFO : Connection successful after 9 seconds\n" + tries * 2
    shown = [line.split(" ", 1)[1] for line in filtered(lines, tmp_path / "flower.log")]
    again, there = REASONS["Connection attempt failed, retrying"], REASONS["Connection successful after"]
    assert shown == [again, there, again]


class GrpcError(Exception):
    def __init__(self, details: str) -> None:
        self.details = lambda: details


REFUSAL = GrpcError('{"code": 2004, "public_message": "Failed to activate SuperNode."}')


def test_a_refused_node_tries_again_for_longer_than_flower_counts_on_a_dead_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(supernode, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def rules(**options: Any) -> Any:
        return SimpleNamespace(should_giveup=lambda _: True, **options)

    made = patient(rules)(max_retries=None)
    assert made.max_retries is None and made.should_giveup(GrpcError('{"code": 1}'))
    for seconds in (0, 30, 30):
        now[0] += seconds
        assert not made.should_giveup(REFUSAL)
    now[0] += 60
    assert made.should_giveup(REFUSAL)
    assert capsys.readouterr().err.count("refuses this node's key") == 1


def test_flowers_rules_are_asked_whether_to_give_up() -> None:
    """The attribute that is replaced is the one that Flower reads."""
    from flwr.supernode.start_client_internal import _make_fleet_connection_retry_invoker as make

    tried: list[int] = []

    def call() -> str:
        tried.append(0)
        if len(tried) < 3:
            raise RefusedError
        return "let in"

    class RefusedError(Exception):
        details = staticmethod(REFUSAL.details)

    rules: RetryInvoker = patient(make)(connection_error_type=RefusedError)
    rules.wait_function = lambda _: None
    assert rules.invoke(call) == "let in"


def test_a_node_says_once_that_nothing_was_asked_for_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(supernode, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    waits = Waits()
    for _ in range(2):
        while now[0] < 1500:
            waits.sleep(3)
        assert capsys.readouterr().err.count("connected, but without a message for 10 minutes") == 1
        now[0] = 0
        waits.sleep(0.5)
