"""A mean under which the model forgets what it had learned is not taken."""

import json
from pathlib import Path

import pytest
import torch
from conftest import experiment
from flwr.app import Message, RecordDict

from client.site import Site
from common import wire
from common.metrics import Tally
from deploy.in_process import InProcessGrid
from server.collapse import LastGood
from server.federation import Federation
from server.record import RunFolder

TEST = ("test",)


def tally(correct: int, examples: int = 200, classes: int = 4) -> Tally:
    hits = [correct, *[0] * (classes - 1)]
    return Tally(hits, [examples, *[0] * (classes - 1)], hits, [0.0] * classes)


def test_a_model_whose_accuracy_falls_far_is_not_taken() -> None:
    good = LastGood(0.5)
    first, second = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    assert good.judge(first, tally(160), TEST) == ""
    assert "from 80.0% to 35.0%" in good.judge(second, tally(70), TEST)
    assert good.params is first
    assert good.judge(second, tally(90), TEST) == "" and good.params is second


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        pytest.param(tally(90), tally(10), 0.5, id="before it had learned anything"),  # 45 % of four classes
        pytest.param(tally(4, examples=4), tally(1, examples=4), 0.5, id="few examples"),
        pytest.param(tally(160), tally(0), None, id="not wanted"),
        pytest.param(tally(160), None, 0.5, id="not measured"),
    ],
)
def test_what_is_no_collapse(before: Tally, after: Tally | None, share: float | None) -> None:
    good = LastGood(share)
    good.judge({"w": torch.zeros(1)}, before, TEST)
    assert good.judge({"w": torch.ones(1)}, after, TEST) == ""


def test_measurements_at_different_sites_are_not_compared() -> None:
    good = LastGood(0.5)
    good.judge({"w": torch.zeros(1)}, tally(180), ("a", "b"))
    assert good.judge({"w": torch.ones(1)}, tally(20), ("c",)) == ""


class Poisoning(InProcessGrid):
    """One site's update of round 3 undoes what all have learned."""

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        if message.metadata.dst_node_id == 10 and wire.read_body(message).get("round") == 3:
            received = wire.unpack(message.content.array_records["params"])
            spoiled = {name: -4 * value for name, value in received.items()}
            content = RecordDict({"body": reply.content["body"], "params": wire.pack(spoiled)})
            return Message(content, reply_to=message)
        return reply


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
        models[name] = lines, run.summary()["accuracy"]["audio+image"]
    undone = [line["round"] for line in models["poisoned"][0] if line["collapsed"]]
    assert undone == [3 if tested else 4] and not any(line["collapsed"] for line in models["honest"][0])
    if tested:  # the model that is kept is the one that was measured
        assert models["poisoned"][0][3]["test"] == models["poisoned"][0][2]["test"]
    assert models["poisoned"][1] > 0.7 * models["honest"][1]
