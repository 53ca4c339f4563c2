"""Whole runs without a network: real Flower messages, the client's and the server's real code."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import experiment
from flwr.app import Message
from safetensors.torch import load_file

from client.site import Site
from common.blocks import block_of
from common.config.component import find, own_names
from common.config.experiment import Experiment
from common.errors import RunError
from common.exchange import wire
from deploy.engines.in_process import InProcessGrid
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation


def sites(*folders: Path) -> list[Site]:
    return [Site(folder) for folder in folders]


def run(chosen: Experiment, shards: Path, folder: Path, grid: InProcessGrid | None = None) -> Federation:
    grid = grid or InProcessGrid(sites(shards / "client-0", shards / "client-1"))
    federation = Federation(chosen, grid, shards / "test", RunFolder(folder, chosen), probe_shard=shards / "test")
    federation.run()
    return federation


@pytest.mark.parametrize("method", own_names("method"))
def test_two_rounds_give_the_same_numbers_twice(method: str, tiny_shards: Path, tmp_path: Path) -> None:
    model = find("method", method).model
    small = {"model__architecture": {"name": model, "width": 16}} if model in ("joint", "joint-shared") else {}
    results = []
    for name in ("one", "two"):
        torch.manual_seed(len(results))  # global random state must not matter
        run(experiment(method=method, **small), tiny_shards, tmp_path / name)
        results.append(load_file(tmp_path / name / "model.safetensors"))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def test_training_changes_every_block_and_another_seed_the_result(tiny_shards: Path, tmp_path: Path) -> None:
    run(experiment(), tiny_shards, tmp_path / "a")
    run(experiment(federation__rounds=1), tiny_shards, tmp_path / "b")
    run(experiment(seed=4), tiny_shards, tmp_path / "c")
    a, b, c = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    for block in ("audio", "image", "shared"):
        assert any(not torch.equal(a[key], b[key]) for key in a if block_of(key) == block)
    assert any(not torch.equal(a[key], c[key]) for key in a)


def test_the_records_of_a_run(tiny_shards: Path, tmp_path: Path) -> None:
    federation = run(experiment(), tiny_shards, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert set(lines[2]["test"]) == {"audio", "image", "audio+image"}
    assert set(lines[2]["losses"]) == {"fused", "unimodal", "infiltration", "proximal"}
    assert set(lines[1]["losses"]) == {"fused", "unimodal", "proximal"}
    per_block = {block: sum(t.numel() * 4 for key, t in load_file(tmp_path / "model.safetensors").items()
                            if block_of(key) == block) for block in ("audio", "image", "shared")}  # fmt: skip
    expected = {block: count * (1 if block == "image" else 2) for block, count in per_block.items()}
    assert lines[2]["block_bytes"] == {"up": expected, "down": expected}
    assert lines[2]["bytes_up"] == sum(client["bytes_up"] for client in lines[2]["clients"].values())
    held = {site: set(client["modalities"]) for site, client in lines[2]["clients"].items()}
    assert sorted(map(sorted, held.values())) == [["audio"], ["audio", "image"]]
    summary = federation.summary()
    assert summary["rounds"] == 2
    assert summary["scores"].keys() == {"audio", "image", "audio+image"}
    assert summary["bytes_up"] == lines[1]["bytes_up"] + lines[2]["bytes_up"]
    for name, figures in lines[2]["test"].items():
        recalls = [value for value in figures["by_class"]["sensitivity"] if value is not None]
        assert figures["accuracy"] == summary["scores"][name]
        assert min(recalls) <= figures["accuracy"] <= max(recalls)


def test_bfloat16_halves_the_bytes(tiny_shards: Path, tmp_path: Path) -> None:
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        run(experiment(wire__dtype=dtype, federation__rounds=1), tiny_shards, tmp_path / dtype)
        line = json.loads((tmp_path / dtype / "metrics.jsonl").read_text().splitlines()[1])
        sizes[dtype] = line["bytes_down"]
    assert 0.48 < sizes["bfloat16"] / sizes["float32"] < 0.6


def nan_from_client_1(node: int, reply: Message) -> Message:
    if node != 11 or "params" not in reply.content.array_records:
        return reply
    sent = wire.unpack(reply.content.array_records["params"])
    spoiled = {key: value * float("nan") for key, value in sent.items()}
    reply.content["params"] = wire.pack(spoiled)
    return reply


def test_a_poisoned_update_is_left_out_and_named(tiny_shards: Path, tmp_path: Path) -> None:
    folders = [tiny_shards / "client-0", tiny_shards / "client-1"]
    grid = InProcessGrid(sites(*folders), nan_from_client_1)
    run(experiment(federation__min_replies=1), tiny_shards, tmp_path, grid)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])
    assert "not finite" in line["failed"]["client-1"]
    assert set(line["clients"]) == {"client-0"}
    assert all(value.isfinite().all() for value in load_file(tmp_path / "model.safetensors").values())


def test_divergence_ends_the_run_with_the_sites_name(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"client-\d: TrainingError|client-\d: training diverged"):
        run(experiment(train__lr=1e12, federation__rounds=4), tiny_shards, tmp_path)


def test_a_shard_without_usable_examples_is_refused_by_name(tiny_shards: Path, tmp_path: Path) -> None:
    broken = tmp_path / "client-1"
    shutil.copytree(tiny_shards / "client-1", broken)
    for path in broken.glob("*/*.*"):
        path.write_bytes(b"not a picture")
    folders = [tiny_shards / "client-0", broken]
    with pytest.raises(RunError, match=r"client-1: .*no usable example among"):
        run(experiment(), tiny_shards, tmp_path / "strict", InProcessGrid(sites(*folders)))
    tolerant = experiment(federation__min_replies=1)
    federation = run(tolerant, tiny_shards, tmp_path / "lenient", InProcessGrid(sites(*folders)))
    assert "no usable example" in federation.summary()["refused"]["client-1"]


def test_other_classes_and_a_second_site_of_one_name_are_refused(tiny_shards: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_shards / "client-0", other)
    info = json.loads((other / "shard.json").read_text())
    (other / "shard.json").write_text(json.dumps(info | {"site": "other", "classes": info["classes"][::-1]}))
    grid = InProcessGrid(sites(tiny_shards / "client-0", tiny_shards / "client-0", other))
    federation = run(experiment(federation__min_replies=1), tiny_shards, tmp_path / "run", grid)
    reasons = federation.summary()["refused"]
    assert any("another site has this name" in reason for reason in reasons.values())
    assert "differ from the federation's" in reasons["other"]


def test_a_run_works_without_a_test_shard(tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(data__validation=0.3)
    grid = InProcessGrid(sites(tiny_shards / "client-0", tiny_shards / "client-1"))
    federation = Federation(chosen, grid, None, RunFolder(tmp_path, chosen))
    federation.run()
    assert federation.summary()["measured_on"] == "validation"
    assert federation.summary()["scores"]


def test_a_server_optimizer_changes_the_model_and_its_momentum_goes_on(tiny_shards: Path, tmp_path: Path) -> None:
    results = {}
    for name, optimizer in (
        ("plain", None),
        ("again", {"name": "fedavgm", "momentum": 0.0}),
        ("yogi", {"name": "fedyogi"}),
    ):
        chosen = experiment(federation__optimizer=optimizer)
        run(chosen, tiny_shards, tmp_path / name)
        results[name] = load_file(tmp_path / name / "model.safetensors")
    assert all(torch.allclose(results["plain"][key], results["again"][key], atol=1e-6) for key in results["plain"])
    assert not torch.allclose(results["plain"]["fusion.weight"], results["yogi"]["fusion.weight"])
    assert all(value.isfinite().all() for value in results["yogi"].values())
