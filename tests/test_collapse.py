"""A mean under which the model forgets what it had learned is not taken."""

import json
from pathlib import Path

import pytest
import torch
from conftest import experiment
from flwr.app import Message, RecordDict

from client.site import Site
from common.exchange import wire
from deploy.engines.in_process import InProcessGrid
from server.record.run_folder import RunFolder
from server.rounds.collapse import LastGood, Skill
from server.rounds.federation import Federation


def skill(correct: int, examples: int = 200, classes: int = 4) -> Skill:
    """The accuracy of a number of examples."""
    return Skill(correct / examples, 1 / classes, examples)


FIRST, SECOND, THIRD = ({"w": torch.full((1,), float(i))} for i in range(3))


def test_a_model_whose_accuracy_falls_far_is_not_taken() -> None:
    good = LastGood(0.5)
    assert good.judge(FIRST, {"test": skill(160)}) == ""
    assert "from 80.0% to 35.0%" in good.judge(SECOND, {"test": skill(70)})
    assert good.params is FIRST and good.instead(SECOND) is FIRST
    assert good.judge(SECOND, {"test": skill(90)}) == "" and good.params is SECOND
    assert good.instead(SECOND) is FIRST


def test_accuracy_is_held_against_the_best_so_far() -> None:
    good = LastGood(0.5)
    said = [bool(good.judge({"w": torch.ones(1)}, {"test": skill(c)})) for c in (160, 120, 85, 70, 55)]
    assert said == [False, False, False, True, True]  # no step is a fall to less than half of the one before


def test_one_site_undoes_no_round_and_hides_no_collapse() -> None:
    good = LastGood(0.5)
    liar = skill(10**12, 10**12)
    good.judge(FIRST, {"a": skill(150), "b": skill(150), "liar": liar})
    assert good.judge(SECOND, {"a": skill(160), "b": skill(155), "liar": skill(0, 10**12)}) == ""
    assert good.judge(THIRD, {"a": skill(5), "b": skill(5), "liar": liar}) != ""
    assert good.judge(THIRD, {"a": skill(5), "b": skill(5)}) != ""  # the liar says nothing this time
    assert good.params is SECOND


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        pytest.param(skill(90), skill(10), 0.5, id="before it had learned anything"),  # 45 % of four classes
        pytest.param(skill(4, examples=4), skill(1, examples=4), 0.5, id="few examples"),
        pytest.param(skill(160), skill(0), None, id="not wanted"),
        pytest.param(skill(160), None, 0.5, id="not measured"),
    ],
)
def test_what_is_no_collapse(before: Skill, after: Skill | None, share: float | None) -> None:
    good = LastGood(share)
    good.judge(FIRST, {"test": before})
    assert good.judge(SECOND, {"test": after} if after else {}) == ""


def test_measurements_at_different_sites_are_not_compared() -> None:
    good = LastGood(0.5)
    good.judge(FIRST, {"a": skill(180), "b": skill(180)})
    assert good.judge(SECOND, {"c": skill(20)}) == ""


class Poisoning(InProcessGrid):
    """One site's update of round 3 undoes what all have learned. spoiled: by name, what its parameters are multiplied
    by, so that the model can still be trained or cannot."""

    spoiled: dict[str, float] = {"": -4.0}  # noqa: RUF012

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        if message.metadata.dst_node_id == 10 and wire.read_body(message).get("round") == 3:
            received = wire.unpack(message.content.array_records["params"])
            factor = {name: f for name in received for begin, f in self.spoiled.items() if name.startswith(begin)}
            spoiled = {name: factor.get(name, 1.0) * value for name, value in received.items()}
            content = RecordDict({"body": reply.content["body"], "params": wire.pack(spoiled)})
            return Message(content, reply_to=message)
        return reply


class Turning(Poisoning):
    """The model forgets and can still be trained."""

    spoiled = {"fusion": -3.0}  # noqa: RUF012


class Breaking(Poisoning):
    """What the model says stays, and nobody can train it."""

    def _answer(self, message: Message) -> Message:
        reply = InProcessGrid._answer(self, message)
        if message.metadata.dst_node_id == 10 and wire.read_body(message).get("round") == 3:
            params = wire.unpack(message.content.array_records["params"])
            hidden = [name for name in params if "projector.0.weight" in name]
            assert hidden
            spoiled = params | {name: params[name] + 9.0 for name in hidden}
            return Message(RecordDict({"body": reply.content["body"], "params": wire.pack(spoiled)}), reply_to=message)
        return reply


@pytest.mark.parametrize(
    ("tested", "grid"),
    [
        (True, Turning),
        (False, Breaking),
        pytest.param(True, Breaking, marks=pytest.mark.slow),
        pytest.param(False, Turning, marks=pytest.mark.slow),
    ],
)
def test_no_poison_of_one_round_ends_the_run(
    tested: bool, grid: type[InProcessGrid], tiny_shards: Path, tmp_path: Path
) -> None:
    chosen = experiment(federation__rounds=5, data__validation=0.4, train__epochs=6, data__missing={})
    sites = [Site(tiny_shards / "client-1", f"s{index}") for index in range(3)]
    test = tiny_shards / "test" if tested else None
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"clients": 3})})
    Federation(chosen, grid(sites), test, RunFolder(tmp_path / "run", chosen)).run()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("tested", [True, False])
def test_a_poisoned_round_is_undone_and_the_run_ends_well(tested: bool, tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(federation__rounds=5, data__validation=0.4, train__epochs=6, data__missing={})
    models = {}
    for name, grid in (("honest", InProcessGrid), ("poisoned", Poisoning)):
        sites = [Site(tiny_shards / f"client-{index}") for index in (1, 1)]
        for index, site in enumerate(sites):
            site._name = f"s{index}"
        folder = tmp_path / name
        run = Federation(chosen, grid(sites), tiny_shards / "test" if tested else None, RunFolder(folder, chosen))
        run.run()
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        models[name] = lines, run.summary()["scores"]["audio+image"]
    undone = [line["round"] for line in models["poisoned"][0] if line["collapsed"]]
    assert undone == [3 if tested else 4] and not any(line["collapsed"] for line in models["honest"][0])
    if tested:  # the model that is kept is the one that was measured
        assert models["poisoned"][0][3]["test"] == models["poisoned"][0][2]["test"]
    assert models["poisoned"][1] > 0.7 * models["honest"][1]
