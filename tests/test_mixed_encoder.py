"""Sites with different frozen encoders of one modality."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import experiment
from test_frozen_encoders import PICTURE, encoder

from client.site import Site
from common.blocks import get_params
from common.build import build_model
from common.config.component import build
from common.config.experiment import Experiment
from common.encoders.mixed import MixedEncoder
from common.errors import ConfigError
from common.evaluation.evaluate import evaluate
from common.split.make import make_shards
from common.tasks.find import task_of
from deploy.engines.in_process import InProcessGrid
from server.own_data.evaluate import TestSet
from server.record.run_folder import RunFolder, read_rounds
from server.rounds.federation import Federation

COCA: dict[str, Any] = {"name": "open-clip-image", "model": "coca"}
VIT: dict[str, Any] = {"name": "vision-transformer", "model": "vision_transformer", "heads": 2, "grid": 2}


def mixed(*members: dict[str, Any]) -> MixedEncoder:
    made: MixedEncoder = build("encoder", {"name": "mixed", "members": list(members)}).build()
    return made


def chosen(**changes: Any) -> Experiment:
    given = {
        "data__set": {"name": "birds-mini", "train_per_class": 1, "test_per_class": 1},
        "data__clients": 6,
        "data__limit": 36,
        "data__missing": {},
        "data__test_limit": 8,
        "model__encoders": {
            "image": {"name": "mixed", "members": [COCA, VIT]},
            "text": {"name": "open-clip-text", "model": "coca"},
        },
        "method": "fedavg",
        "federation__rounds": 1,
    }
    return experiment(**given | changes)


@pytest.fixture
def shards(models: Path, tmp_path: Path) -> Path:
    make_shards(chosen(), tmp_path / "shards")
    return tmp_path / "shards"


@pytest.mark.usefixtures("models")
def test_every_member_has_columns_of_its_own() -> None:
    members = [encoder(given["name"], {k: v for k, v in given.items() if k != "name"}) for given in (COCA, VIT)]
    ways = mixed(COCA, VIT).alternatives()
    first, second = members[0].width, members[0].width + members[1].width
    for way, member, (start, stop) in zip(ways, members, ((0, first), (first, second)), strict=True):
        found, alone = way.prepare(PICTURE), member.prepare(PICTURE)
        assert found.shape == way.blank().shape == (1 + max(m.length for m in members), second)
        assert torch.equal(found[: 1 + member.length, start:stop], alone)
        assert not found[1 + member.length :].any()
        rest = torch.ones(second, dtype=torch.bool)
        rest[start:stop] = False
        assert not found[:, rest].any()
        assert int(way.tokens(found[None])[1].sum()) == member.length


def test_every_site_uses_one_and_the_features_of_both_are_kept(shards: Path) -> None:
    used: dict[int, set[str]] = {seed: set() for seed in (1, 2)}
    for seed in used:
        for index in range(6):
            site = Site(shards / f"client-{index}")
            columns = site.open(chosen(seed=seed)).loaded.examples.inputs["image"].abs().sum((0, 1)) > 0
            half = len(columns) - 20  # the tiny vision transformer is 20 wide
            assert columns[:half].any() != columns[half:].any()
            again = Site(shards / f"client-{index}").open(chosen(seed=seed)).loaded.examples.inputs["image"]
            assert torch.equal(again.abs().sum((0, 1)) > 0, columns)
            used[seed].add(f"{index} {'coca' if columns[:half].any() else 'vit'}")
    assert used[1] != used[2]
    assert all({name.split()[1] for name in names} == {"coca", "vit"} for names in used.values())


def test_a_site_that_is_kept_prepares_its_examples_once_for_seeds_that_choose_the_same(shards: Path) -> None:
    site = Site(shards / "client-0")
    loaded = [site.open(chosen(seed=seed)).loaded for seed in range(1, 9)]
    assert len({id(each) for each in loaded}) == 2


def test_the_server_looks_at_its_examples_through_every_member(shards: Path, tmp_path: Path) -> None:
    test = TestSet(chosen(), shards / "test")
    model = build_model(chosen(), len(test.classes))
    task = task_of(chosen().task, test.classes)
    both = test.evaluate(get_params(model), task)["image"].parts["answers"].counts
    alone = [TestSet(chosen(model__encoders__image=member), shards / "test").examples for member in (COCA, VIT)]
    assert len(test.examples) == 2 * len(alone[0])
    halves = [test.examples.rows(torch.arange(start, start + 8)) for start in (0, 8)]
    right = sum(evaluate(model, half, 8, task)["image"].parts["answers"].counts[1] for half in halves)
    assert both.tolist() == [16 - right, right]
    width = alone[0].inputs["image"].shape[2]
    assert torch.equal(halves[0].inputs["image"][:, :, :width], alone[0].inputs["image"])


def test_a_round_changes_the_columns_of_every_member_that_a_site_used(shards: Path, tmp_path: Path) -> None:
    joint = chosen(method="co-attention", model__architecture={"name": "joint", "width": 8, "depth": 1})
    sites = [Site(shards / f"client-{index}") for index in range(6)]
    before = get_params(build_model(joint, 48))
    after = Federation(joint, InProcessGrid(sites), shards / "test", RunFolder(tmp_path / "run", joint)).run()
    changed = before["branches.image.tokens.weight"] != after["branches.image.tokens.weight"]
    assert changed.any(0).all()
    assert read_rounds(tmp_path / "run")[-1]["test"]["image"]["accuracy"] is not None


def test_mistakes_are_found_before_anything_is_loaded() -> None:
    for members, expected in (
        ([COCA], "at least 2"),
        ([COCA, {"model": "coca"}], "needs a name"),
        ([COCA, {"name": "open-clip-imagee"}], "did you mean 'open-clip-image'"),
        ([COCA, {**VIT, "grit": 3}], "vision-transformer: grit"),
    ):
        with pytest.raises(ConfigError, match=expected):
            chosen(model__encoders={"image": {"name": "mixed", "members": members}})


@pytest.mark.usefixtures("models")
def test_a_trained_encoder_cannot_be_mixed() -> None:
    with pytest.raises(ConfigError, match="image: only frozen"):
        mixed(COCA, {"name": "image"})
    with pytest.raises(ValueError, match="an image is needed"):
        mixed(COCA, VIT).prepare("no picture")
