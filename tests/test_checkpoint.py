"""Crash-exact resume: checkpoints, and a run that goes on as if nothing had happened."""

import errno
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import experiment
from flwr.app import Message
from safetensors import safe_open
from safetensors.torch import load_file

from client.site import Site
from common.config.experiment import Experiment
from common.errors import ConfigError, RunError
from common.exchange import wire
from deploy.engines.in_process import InProcessGrid
from server.record.checkpoint import Checkpoint, check_same, load_checkpoint, save_checkpoint
from server.record.run_folder import RunFolder, unfinished_folder
from server.rounds.federation import Federation

ROUNDS = 4


class Crash(BaseException):
    """The death of a process: nothing catches it."""


class CrashingGrid(InProcessGrid):
    """The ServerApp dies when it is about to train in a round."""

    def __init__(self, shards: Path, crash_in: int = 0) -> None:
        super().__init__([Site(shards / "client-0"), Site(shards / "client-1")])
        self._crash_in = crash_in

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        if any(wire.read_body(message).get("round") == self._crash_in for message in messages):
            raise Crash
        return super().push_messages(messages)


def go(chosen: Experiment, shards: Path, folder: Path, crash_in: int = 0, resume: bool = False) -> Federation:
    run = RunFolder(folder, chosen, resume)
    federation = Federation(chosen, CrashingGrid(shards, crash_in), shards / "test", run)
    federation.run()
    return federation


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Every line without its times, which count in the bytes of a reply as well."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for part in (line, *line["clients"].values()):
            del part["seconds"], part["bytes_up"]
    return lines


@pytest.mark.parametrize("optimizer", [None, {"name": "fedavgm"}, {"name": "fedadam"}, {"name": "fedyogi"}])
def test_a_resumed_run_ends_with_the_same_bits(optimizer: Any, tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(federation__rounds=ROUNDS, federation__optimizer=optimizer)
    go(chosen, tiny_shards, tmp_path / "whole")
    with pytest.raises(Crash):
        go(chosen, tiny_shards, tmp_path / "broken", crash_in=2)
    with pytest.raises(Crash):
        go(chosen, tiny_shards, tmp_path / "broken", crash_in=4, resume=True)
    resumed = go(chosen, tiny_shards, tmp_path / "broken", resume=True)
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[key], broken[key]) for key in whole)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "broken")
    summary = resumed.summary()
    assert (summary["rounds"], summary["resumed"]) == (ROUNDS, [1, 3])
    assert summary["bytes_down"] == sum(line["bytes_down"] for line in metrics(tmp_path / "whole"))


def test_a_run_that_died_before_its_first_round_starts_anew(tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(federation__rounds=1)
    with pytest.raises(Crash):
        go(chosen, tiny_shards, tmp_path / "run", crash_in=1)
    go(chosen, tiny_shards, tmp_path / "run", resume=True)
    assert [line["round"] for line in metrics(tmp_path / "run")] == [0, 1]


def test_a_run_that_died_after_its_last_round_needs_no_client(tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(federation__rounds=2)
    done = go(chosen, tiny_shards, tmp_path / "run").summary()
    run = RunFolder(tmp_path / "run", chosen, resume=True)
    again = Federation(chosen, InProcessGrid([]), tiny_shards / "test", run)
    again.run()
    assert again.summary() == done | {"resumed": [2], "missing": again.summary()["missing"]}


def some(number: int) -> Checkpoint:
    params = {"w": torch.full((3, 2), float(number)), "b": torch.tensor([1.0, -number])}
    return Checkpoint(number, params, {"m_t/w": torch.ones(2) * number}, {"classes": ["x"], "keys": {}})


def test_a_checkpoint_comes_back_as_it_was_and_two_are_kept(tmp_path: Path) -> None:
    for number in range(1, 5):
        save_checkpoint(tmp_path, some(number))
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert (found.round, found.about) == (4, some(4).about)
    assert all(torch.equal(found.params[key], some(4).params[key]) for key in ("w", "b"))
    assert torch.equal(found.strategy["m_t/w"], torch.full((2,), 4.0))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert [name[:12] for name in names] == ["round-000003", "round-000004"]
    with safe_open(tmp_path / "checkpoints" / names[1], "pt") as file:  # any tool can read it
        assert set(file.keys()) == {"model/w", "model/b", "strategy/m_t/w"}


def torn(data: bytes) -> bytes:
    return data[: len(data) // 2]


def tampered(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("damage", [torn, tampered, lambda _: b""])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        save_checkpoint(tmp_path, some(number))
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(damage(newest.read_bytes()))
    found = load_checkpoint(tmp_path)
    assert found is not None and found.round == 1
    assert newest.name in caplog.text and "damaged" in caplog.text


def test_what_an_interrupted_write_left_is_no_checkpoint_and_is_removed(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, some(1))
    whole = next((tmp_path / "checkpoints").iterdir())
    left = whole.with_name(f".{whole.name}.partial")
    left.write_bytes(torn(whole.read_bytes()))
    assert getattr(load_checkpoint(tmp_path), "round", None) == 1
    save_checkpoint(tmp_path, some(2))
    assert not left.exists()


def test_a_run_goes_on_only_with_the_options_it_began_with() -> None:
    began = Checkpoint(1, {}, {}, {"experiment": json.loads(experiment().to_json())})
    check_same(experiment(federation__round_seconds=5, federation__wait_seconds=7, name="other"), began)
    with pytest.raises(ConfigError) as caught:
        check_same(experiment(train__lr=0.5, seed=9), began)
    assert caught.value.mistakes == [
        "seed: 3 when the run began, 9 now",
        "train.lr: 0.01 when the run began, 0.5 now",
    ]


def test_a_full_disk_ends_the_run_with_a_clear_message_and_loses_nothing(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, folder, sync = experiment(federation__rounds=ROUNDS), tmp_path / "run", os.fsync

    def full_from_round_3(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if "round-000003" in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full_from_round_3)
    with pytest.raises(RunError, match=r"cannot be written: No space left on device.*--resume"):
        go(chosen, tiny_shards, folder)
    monkeypatch.undo()
    assert getattr(load_checkpoint(folder), "round", None) == 2
    assert not list((folder / "checkpoints").glob(".*"))
    go(chosen, tiny_shards, folder, resume=True)
    go(chosen, tiny_shards, tmp_path / "whole")
    one, other = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "whole"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_two_processes_never_write_to_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("server.record.run_folder.PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("server.record.run_folder.LOOK_SECONDS", 0.05)
    first = RunFolder(tmp_path / "run", experiment())
    with caplog.at_level("INFO"), pytest.raises(RunError, match=rf"process {os.getpid()} .*still writes"):
        RunFolder(tmp_path / "run", experiment(), resume=True)
    assert "waiting until process" in caplog.text
    del first
    RunFolder(tmp_path / "run", experiment(), resume=True)


def test_a_run_never_overwrites_another(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", experiment())
    with pytest.raises(ConfigError, match="already contains a run"):
        RunFolder(tmp_path / "run", experiment())


def test_which_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run"):
        unfinished_folder(tmp_path / "a")
    for name in ("a", "a-2"):
        (tmp_path / name).mkdir()
    assert unfinished_folder(tmp_path / "a") == tmp_path / "a-2"
    (tmp_path / "a-2" / "summary.json").write_text('{"status": "completed"}')
    with pytest.raises(ConfigError, match="has finished already"):
        unfinished_folder(tmp_path / "a")
    shutil.rmtree(tmp_path / "a-2")
    assert unfinished_folder(tmp_path / "a") == tmp_path / "a"
