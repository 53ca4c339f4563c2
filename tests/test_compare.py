"""Runs side by side: rows, differences and warnings, on run folders written here."""

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from conftest import experiment
from scipy.stats import ttest_rel
from test_cli import call
from test_report import Page

from common.errors import ConfigError
from deploy.study.comparison.rows import Comparison, compare
from deploy.study.comparison.table import heads, shares

FEDAVG, FEDCMI = (0.80, 0.84, 0.79), (0.85, 0.86, 0.88)
SEEDS = (1, 2, 3)


def write_run(
    folder: Path, accuracy: float, seed: int, status: str = "completed", measured: str = "test", examples: int = 50,
    sites: tuple[int, ...] = (40, 30), **changes: Any,
) -> Path:  # fmt: skip
    """A run folder with three rounds; with the image alone accuracy is 0.1 lower."""
    folder.mkdir(parents=True)
    chosen = experiment(seed=seed, name=f"run-{seed}", **changes)
    (folder / "experiment.yaml").write_text(chosen.to_yaml())
    found = {"audio": accuracy, "image": accuracy - 0.1, "audio+image": accuracy}
    lines = []
    for number in range(4):
        figures = {
            name: {"accuracy": value * number / 3, "macro_f1": value / 2, "examples": examples}
            for name, value in found.items()
        }
        line = {
            "format": 2,
            "round": number,
            "test": {},
            "validation": {},
            "seconds": {"total": 1.0},
            "bytes_up": 10,
            "bytes_down": 20,
        }
        lines.append({**line, measured: figures})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = {
        "name": folder.name, "status": status, "seed": seed, "rounds": 3, "modalities": ["audio", "image"],
        "classes": ["0", "1"], "format": 2, "scores": found, "measured_on": measured, "bytes_up": 30,
        "bytes_down": 60, "seconds": 4.5,
        "sites": {f"client-{i}": {"modalities": ["audio"], "num_examples": n} for i, n in enumerate(sites)},
    }  # fmt: skip
    if status != "unfinished":
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three seeds of two methods."""
    written = [write_run(tmp_path / f"avg-{s}", a, s, method="fedavg") for s, a in zip(SEEDS, FEDAVG, strict=True)]
    return written + [write_run(tmp_path / f"cmi-{s}", a, s) for s, a in zip(SEEDS, FEDCMI, strict=True)]


def labels(comparison: Comparison) -> list[list[str]]:
    return [[run.label for run in row.runs] for row in comparison.rows]


def test_seeds_are_one_row_with_mean_deviation_and_paired_difference(runs: list[Path]) -> None:
    comparison = compare(runs)
    assert labels(comparison) == [["avg-1", "avg-2", "avg-3"], ["cmi-1", "cmi-2", "cmi-3"]]
    first, second = comparison.rows
    for row, values in ((first, FEDAVG), (second, FEDCMI)):
        for name, shift in (("accuracy:audio+image", 0.0), ("accuracy:image", 0.1)):
            found = row.measure(name)
            assert found is not None
            assert found.mean == pytest.approx(statistics.fmean(values) - shift)
            assert found.deviation == pytest.approx(statistics.stdev(values))
    found = second.difference("accuracy:audio", first)
    assert found is not None
    expected = ttest_rel(FEDCMI, FEDAVG).confidence_interval(0.95)
    assert found.mean == pytest.approx(statistics.fmean(FEDCMI) - statistics.fmean(FEDAVG))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.pairs == 3
    assert first.difference("accuracy:audio", first) is None
    assert comparison.notes() == []


def test_pairs_are_of_equal_seeds_whatever_the_order_of_the_runs(runs: list[Path]) -> None:
    avg, cmi = compare([runs[2], runs[0], *runs[3:5]]).rows  # seeds 3 and 1, seeds 1 and 2: one pair
    assert cmi.difference("accuracy:audio", avg) is None
    avg, cmi = compare([runs[2], runs[0], runs[3], runs[5]]).rows
    found = cmi.difference("accuracy:audio", avg)
    assert found is not None
    assert found.mean == pytest.approx(((FEDCMI[0] - FEDAVG[0]) + (FEDCMI[2] - FEDAVG[2])) / 2)
    (note,) = compare([*runs[:3], *runs[3:5]]).notes()
    assert "other seeds than avg-1 + 2 more" in note


def test_only_settings_that_differ_are_told_and_those_of_a_component_where_it_is_used(
    runs: list[Path], tmp_path: Path
) -> None:
    avg, cmi = compare(runs).rows
    assert avg.settings == {
        "method.name": "fedavg", "model.architecture.name": "late-fusion", "strategy.name": "fedavg"
    }  # fmt: skip
    assert cmi.settings["method.name"] == "fedcmi"
    assert cmi.settings.keys() == avg.settings.keys()
    strong = write_run(tmp_path / "strong", 0.9, 1, method={"name": "fedcmi", "mu": 0.5})
    avg, cmi, other = compare([*runs, strong]).rows
    assert "method.mu" not in avg.settings
    assert (cmi.settings["method.mu"], other.settings["method.mu"]) == ("0.01", "0.5")
    rate = write_run(tmp_path / "rate", 0.9, 1, method="fedavg", train={"lr": 0.5})
    assert [row.settings["train.lr"] for row in compare([runs[0], rate]).rows] == ["0.01", "0.5"]


def test_options_that_decide_nothing_about_learning_make_no_row(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", 0.8, 1)
    other = write_run(tmp_path / "other", 0.8, 2, federation__wait_seconds=5)
    assert labels(compare([one, other])) == [["one", "other"]]


def test_a_repeated_seed_begins_another_row(tmp_path: Path) -> None:
    written = [write_run(tmp_path / name, 0.8, seed) for name, seed in (("a", 1), ("a-2", 1), ("b", 2))]
    assert labels(compare(written)) == [["a", "b"], ["a-2"]]
    failed = write_run(tmp_path / "a-0", 0.8, 1, status="failed")
    assert labels(compare([failed, *written])) == [["a-0", "a", "b"], ["a-2"]]


def test_rows_by_an_option_or_a_section(runs: list[Path], tmp_path: Path) -> None:
    slow = write_run(tmp_path / "slow", 0.7, 4, method="fedavg", train__lr=0.001)
    assert len(compare([*runs, slow]).rows) == 3
    for by in ("method.name", "method"):
        rows = compare([*runs, slow], [by]).rows
        assert [len(row.runs) for row in rows] == [4, 3]
        assert rows[0].settings["train.lr"] == "0.01 or 0.001"
    with pytest.raises(ConfigError, match=r"unknown option 'train.lrr'.*did you mean 'train.lr'"):
        compare(runs, ["train.lrr"])


def test_unfinished_and_failed_runs_are_named_and_not_counted(runs: list[Path], tmp_path: Path) -> None:
    failed = write_run(tmp_path / "failed", 0.1, 7, status="failed", method="fedavg")
    going = write_run(tmp_path / "going", 0.1, 8, status="unfinished", method="fedavg")
    comparison = compare([*runs, failed, going])
    avg = comparison.rows[0]
    assert len(avg.runs) == 5
    assert avg.seeds == [1, 2, 3]
    found = avg.measure("accuracy:audio")
    assert found is not None and found.mean == pytest.approx(statistics.fmean(FEDAVG))
    assert comparison.notes() == [
        "failed: failed after 3 rounds; not in the figures",
        "going: unfinished after 3 rounds; not in the figures",
    ]
    alone = compare([going])
    assert [share for share, _ in shares(alone, alone.rows[0])] == ["–"] * len(heads(alone))


def test_runs_that_saw_other_data_are_compared_with_a_warning(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", 0.8, 1)
    others = {
        "noisy": write_run(tmp_path / "noisy", 0.7, 1, data__partition={"name": "dirichlet", "alpha": 0.3}),
        "seed": write_run(tmp_path / "seed", 0.7, 2, method="fedavg-heads"),
        "sizes": write_run(tmp_path / "sizes", 0.7, 1, method="fedavg", sites=(40, 31)),
        "tested": write_run(tmp_path / "tested", 0.7, 1, method="fedprox", examples=51),
        "validated": write_run(tmp_path / "validated", 0.7, 1, method="ogm-ge", measured="validation"),
        "same": write_run(tmp_path / "same", 0.7, 1, train__lr=0.5),
    }
    notes = {note.split(":")[0]: note for note in compare([first, *others.values()]).notes()}
    assert "other data than first (data.partition." in notes["noisy"]
    assert "no seed in common with first" in notes["seed"]
    assert "other shards or test examples than first" in notes["sizes"]
    assert "other shards or test examples than first" in notes["tested"]
    assert "measured on validation examples" in notes["validated"]
    assert "same" not in notes


def test_the_table_fits_a_terminal_and_tells_every_figure(
    runs: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call("compare", *runs) == 0
    shown = capsys.readouterr().out
    table = [line for line in shown.splitlines() if line.startswith(("│", "┃"))]
    assert all(len(line) <= 80 for line in table)
    assert "81.0 ± 2.6" in shown  # of 80, 84 and 79
    assert "+5.3" in shown
    assert "3 rounds, 90 B, 4.5 s" in shown.replace("\n", " ")
    assert "95% confidence interval" in shown


def test_json_has_each_seeds_values(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", *runs, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["seeds"] for row in content["rows"]] == [[1, 2, 3]] * 2
    audio = content["rows"][1]["measures"]["accuracy:audio"]
    assert audio["values"] == {str(seed): value for seed, value in zip(SEEDS, FEDCMI, strict=True)}
    assert audio["difference"]["pairs"] == 3
    assert content["rows"][0]["measures"]["accuracy:audio"]["difference"] is None
    assert content["rows"][0]["measures"]["bytes"]["mean"] == 90
    assert content["notes"] == []


def test_the_page_is_self_contained_and_has_a_curve_a_run(runs: list[Path], tmp_path: Path) -> None:
    strange = write_run(tmp_path / "<b>", 0.5, 9, method="fedprox")
    assert call("compare", *runs, strange, "--out", tmp_path / "page.html") == 0
    page = Page((tmp_path / "page.html").read_text())
    assert "script" not in page.tags
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert len(page.ids) == len(set(page.ids))
    assert {f"plot-curves-{number}" for number in range(3)} <= set(page.ids)
    assert "<b>" in page.text
    assert "81.0 ± 2.6" in page.text
    assert "no seed in common with avg-1 + 2 more" in page.text
    curves = (tmp_path / "page.html").read_text().split('id="plot-curves-0"')[1].split("</figure>")[0]
    # avg and cmi in a colour each with three curves, and one of the third row; and a legend entry each.
    assert [curves.count(f"stroke: {colour}; stroke-width: 1.8") for colour in ("#332288", "#88ccee", "#44aa99")] == [
        3,
        3,
        1,
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "nowhere is not a run folder: it has no experiment.yaml"),
        (["avg-1", "--by", "trian.lr"], "unknown option 'trian.lr'"),
        (["avg-1", "--out", "avg-1"], "avg-1 cannot be written"),
    ],
)
def test_a_mistake_is_one_message_and_status_2(
    runs: list[Path], arguments: list[str], expected: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert call("compare", *arguments) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert "Traceback" not in errors
