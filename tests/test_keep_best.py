"""The best model of a run, and the early end of a run that no longer improves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import RAW, experiment
from safetensors import safe_open
from safetensors.torch import load_file
from test_checkpoint import Crash, go, metrics
from test_cli import call

from client.site import Site
from common import files
from common.config.selection import Selection, selection_of
from common.config.task import SingleLabel
from common.errors import ConfigError, ModelError, RunError
from common.evaluation.figures import standard
from common.tasks.find import task_of
from common.tasks.observed import Tally, tally
from common.trained.predictor import load_model
from common.types import Site as Known
from deploy.engines.in_process import InProcessGrid
from server.record import run_folder
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation
from server.rounds.keeping import BestModel
from server.rounds.progress import Kept

BOTH = ["audio", "image"]
VALIDATION, TEST = "confidence@audio on validation", "confidence on test"


def test_a_rule_names_metric_subset_and_examples_in_any_order_of_modalities() -> None:
    assert selection_of("accuracy on test", BOTH) == Selection("accuracy", "audio+image", "test")
    assert selection_of(" macro_f1@image+audio  on validation", BOTH) == Selection(
        "macro_f1", "audio+image", "validation"
    )


UNKNOWN = "federation.keep.best: unknown"
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"keep": {"best": "acuracy on test"}}, f"{UNKNOWN} metric 'acuracy'; known: accuracy,"),
    ({"keep": {"best": "accuracy@video on test"}}, f"{UNKNOWN} modality 'video'; known: audio, image"),
    ({"keep": {"best": "accuracy"}}, "METRIC[@SUBSET] on validation|test is needed, e.g. 'macro_f1@audio+image on"),
    ({"keep": {"best": "accuracy@audio+ on test"}}, "METRIC[@SUBSET] on validation|test is needed"),
    ({"keep": {"last": False}}, "federation.keep.last is false, which needs federation.keep.best"),
    ({"patience": 3}, "federation.patience is 3, which needs federation.keep.best"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=lambda value: str(value)[:50])
def test_mistakes(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(federation={"rounds": 2, **options})
    assert words in str(caught.value)


def test_all_mistakes_at_once_and_validation_that_does_not_exist() -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(federation__keep={"best": "f1@video on test"}, train__warmup=9.0)
    assert all(words in str(caught.value) for words in ("unknown metric 'f1'", "unknown modality", "train.warmup"))
    with pytest.raises(ConfigError, match=r"keep.best is 'accuracy on validation', but data.validation is 0"):
        experiment(federation__keep={"best": "accuracy on validation"}, data__validation=0.0)


def model(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((1,), value)}


def tallies(correct: int) -> dict[str, Tally]:
    """Those of ten examples of class a, of which the first are recognised."""
    scores = np.array([[1.0, 0.0]] * correct + [[0.0, 1.0]] * (10 - correct))
    return {"audio": tally(task_of(SingleLabel(), ["a", "b"]).observe(scores, np.zeros(10)))}


ACCURACY = next(one for one in standard("single-label") if one.key == "accuracy")


def walk(on: str, *rounds: tuple[int | None, str], patience: int | None = None) -> tuple[BestModel, list[int]]:
    """The best model after rounds of a number of hits and a reason why the round is undone, and the best round after
    each of them. Model i is made in round i; an undone round has the model before."""
    best, received, found = BestModel(Selection("accuracy", "audio", on), patience, metric=ACCURACY), model(0), []  # type: ignore[arg-type]
    for number, (hits, why) in enumerate(rounds):
        measured = {} if hits is None else tallies(hits)
        made = received if why else model(number)
        best.see(number, received, Kept(made, measured if on == "test" else {}, why), measured)
        received = made
        found.append(best.round)
    return best, found


def test_test_figures_belong_to_the_new_model_and_ties_keep_the_earlier_one() -> None:
    best, rounds = walk("test", (3, ""), (5, ""), (5, ""), (9, "undone"), (4, ""), (6, ""))
    assert rounds == [0, 1, 1, 1, 1, 5]
    assert (best.params, best.value, best.stale) == (model(5), 0.6, 0)


def test_validation_figures_belong_to_the_received_model() -> None:
    best, rounds = walk("validation", (None, ""), (3, ""), (5, ""), (5, ""), (4, ""))
    assert rounds == [0, 0, 1, 1, 1]
    assert (best.params, best.value, best.stale) == (model(1), 0.5, 2)


def test_a_model_that_is_undone_or_comes_back_is_no_candidate() -> None:
    _, rounds = walk("validation", (None, ""), (3, ""), (9, "undone"), (9, ""), (9, ""))
    assert rounds == [0, 0, 0, 0, 3]


def test_patience_counts_measured_rounds() -> None:
    for hits, stopped in (((5, 5, 4), True), ((5, 5, None), False), ((5, 4, 6), False), ((5, 4), False)):
        best, _ = walk("test", *((hit, "") for hit in hits), patience=2)
        assert bool(best.stopped) == stopped, hits
    best, _ = walk("test", (5, ""), (5, ""), patience=1)
    assert best.stopped == "accuracy@audio on test did not improve in 1 round; the best model is of round 0"


def test_sites_that_can_never_measure_end_the_run() -> None:
    def check(replied: list[str], subset: str = "audio+image") -> None:
        best = BestModel(Selection("accuracy", subset, "validation"), metric=ACCURACY)
        sites = [Known("a", frozenset(BOTH), ("x",), 9, {}), Known("b", frozenset(["audio"]), ("x",), 9, {})]
        best.check(1, sites, replied)

    check(["b"])  # a was not sampled
    with pytest.raises(RunError, match="a sent none: a policy withholds them, or the site has no such examples"):
        check(["a"])
    with pytest.raises(RunError, match="no site has these modalities"):
        check(["b"], "audio+video")


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def values(folder: Path, rule: Selection) -> list[float]:
    """The values of the models of rounds 0, 1, ..."""
    lines = [line[rule.on].get(rule.subset, {}).get(rule.metric) for line in metrics(folder)]
    return lines[1:] if rule.on == "validation" else lines


@pytest.mark.parametrize("rule", [VALIDATION, TEST])
def test_the_file_is_the_model_of_the_best_round(rule: str, tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(federation__rounds=4, federation__keep={"best": rule}, train__lr=0.05)
    said = go(chosen, tiny_shards, tmp_path / "run").summary()
    measured = values(tmp_path / "run", selection_of(rule, BOTH))
    best = said["best"]
    assert best["round"] == measured.index(max(measured)) > 0
    assert best["value"] == max(measured)
    assert (best["metric"], said["stopped"]) == ("confidence", "")
    short = experiment(federation__rounds=best["round"], train__lr=0.05)
    go(short, tiny_shards, tmp_path / "short")
    assert same(tmp_path / "run" / "best.safetensors", tmp_path / "short" / "model.safetensors")
    with safe_open(tmp_path / "run" / "best.safetensors", "pt") as file:
        assert json.loads(file.metadata()["best"]) == best
    assert load_model(tmp_path / "run").best is not None
    assert load_model(tmp_path / "run", which="last").best is None
    with pytest.raises(ModelError, match=r"has no best model, because .* federation.keep.best"):
        load_model(tmp_path / "short", which="best")


def test_a_run_that_does_not_improve_ends_early(tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(
        federation={"rounds": 9, "keep": {"best": "accuracy on test", "last": False}, "patience": 2}, train__lr=1e-9
    )
    said = go(chosen, tiny_shards, tmp_path / "run").summary()
    assert (said["rounds"], said["best"]["round"]) == (2, 0)
    assert said["stopped"].startswith("accuracy@audio+image on test did not improve in 2 rounds")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    with pytest.raises(ModelError, match="has only its best model"):
        load_model(tmp_path / "run", which="last")
    run = RunFolder(tmp_path / "run", chosen, resume=True)  # killed before its summary: needs no client
    again = Federation(chosen, InProcessGrid([]), tiny_shards / "test", run)
    again.run()
    assert (again.summary()["best"], again.summary()["stopped"]) == (said["best"], said["stopped"])
    assert not (tmp_path / "run" / "model.safetensors").exists()


class Writes:
    """The names of the files that a run writes, in their order. The run dies before one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, die_at: int | None = None) -> None:
        self.names: list[str] = []
        self._die_at = die_at
        patch.setattr(files, "write_whole", self._noted(files.write_whole))
        patch.setattr(run_folder, "append_line", self._noted(run_folder.append_line))

    def _noted(self, write: Callable[..., None]) -> Callable[..., None]:
        def noted(path: Path, content: Any) -> None:
            if len(self.names) == self._die_at:
                raise Crash
            self.names.append(path.name)
            write(path, content)

        return noted


@pytest.mark.parametrize("every", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize("rule", [VALIDATION, pytest.param(TEST, marks=pytest.mark.slow)])
def test_a_run_killed_before_a_write_ends_with_the_same_best_model(
    rule: str, every: bool, tiny_shards: Path, tmp_path: Path
) -> None:
    """Without `every`: the writes of the round that finds the best model, and the first one after it."""
    federation = {"rounds": 6 if every else 4, "keep": {"best": rule}, "patience": 2, "wait_seconds": 60}
    chosen = experiment(federation=federation, train__lr=0.05)
    with pytest.MonkeyPatch.context() as patch:
        names = (writes := Writes(patch)).names
        whole = go(chosen, tiny_shards, tmp_path / "whole").summary()
        del writes
    assert whole["best"]["round"] > 0 and bool(whole["stopped"]) == (every or rule == TEST)
    found = max(index for index, name in enumerate(names) if name == "best.safetensors")
    for die_at in range(2, len(names)) if every else range(found - 3, found + 2):
        folder = tmp_path / f"died-{die_at}"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
            Writes(patch, die_at)
            go(chosen, tiny_shards, folder)
        again = go(chosen, tiny_shards, folder, resume=True).summary()
        assert (again["best"], again["stopped"]) == (whole["best"], whole["stopped"]), die_at
        for name in ("best.safetensors", "model.safetensors"):
            assert same(folder / name, tmp_path / "whole" / name), (die_at, name)
        assert metrics(folder) == metrics(tmp_path / "whole"), die_at


def test_a_policy_that_withholds_validation_figures_ends_the_run_in_its_first_round(
    tiny_shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "site.yaml").write_text("label_counts: false\n")
    sites = [Site(tiny_shards / f"client-{index}", policy=tmp_path / "site.yaml") for index in range(2)]
    chosen = experiment(federation__keep={"best": VALIDATION})
    federation = Federation(chosen, InProcessGrid(sites), tiny_shards / "test", RunFolder(tmp_path / "run", chosen))
    with pytest.raises(RunError, match="no site sends validation figures of audio; client-0, client-1 sent none"):
        federation.run()
    assert len(metrics(tmp_path / "run")) == 2


def test_a_rule_on_test_needs_a_test_shard(tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(federation__keep={"best": TEST})
    with pytest.raises(ConfigError, match="the server has no test shard: use --test-shard, or choose validation"):
        Federation(chosen, InProcessGrid([]), None, RunFolder(tmp_path / "run", chosen))


def test_terminal_page_predictions_and_card_describe_the_best_model(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = {**RAW["federation"], "rounds": 3, "keep": {"best": TEST, "last": False}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**RAW, "federation": federation}))
    run = tmp_path / "run"
    where = ["--engine", "inprocess", "--shards", tiny_shards, "--run-dir", run]
    assert call("run", tmp_path / "tiny.yaml", *where) == 0
    best = json.loads((run / "summary.json").read_text())["best"]
    words = f"the best model, of round {best['round']}: confidence of audio+image on test is {best['value']:.1%}"
    shown = capsys.readouterr().out
    assert f"kept {words}" in shown and "test figures of this model are optimistic" in shown
    page = (run / "report.html").read_text()
    assert words in page and "test figures of this model are optimistic" in page and "best model</li>" in page
    assert call("predict", run, "--shard", tiny_shards / "test", "--json") == 0
    said = capsys.readouterr()
    assert words in said.err and len(said.out.splitlines()) == 40
    assert call("predict", run, "--shard", tiny_shards / "test", "--model", "last") != 0
    assert "has only its best model" in capsys.readouterr().err
    assert call("export", run, "--out", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    figures = metrics(run)[best["round"]]["test"]["audio+image"]
    assert f"| model | {words} |" in card and "optimistic" in card
    assert f"| audio+image | {figures['accuracy']:.1%} | {figures['macro_f1']:.3f} | " in card
    assert load_model(tmp_path / "out").best == load_model(run).best
    with pytest.raises(ModelError, match="no choice between best and last"):
        load_model(tmp_path / "out", which="last")
