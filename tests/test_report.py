"""The report of a run: one self-contained page that reads well whatever the run was like."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from server.report import write_report

VOID = {"meta", "br", "hr", "img", "link", "input"}
SECTIONS = {"headline", "plots", "subsets", "sites", "troubles", "configuration"}
PLOTS = {f"plot-{slug}" for slug in ("accuracy", "imbalance", "per-class", "losses", "traffic", "time")}


class Page(HTMLParser):
    """Checks that tags nest, and collects text, tags, ids and references."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(source)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.text += data


def figures(share: float, classes: int) -> dict[str, Any]:
    recalls = [share] * (classes - 1) + [None]
    return {"accuracy": share, "macro_f1": share, "confidence": share / 2, "per_class": recalls, "examples": 50}


def a_run(
    folder: Path,
    rounds: int = 3,
    sites: tuple[str, ...] = ("client-0", "client-1"),
    classes: tuple[str, ...] = ("yes", "no", "stop"),
    modalities: tuple[str, ...] = ("audio", "image"),
    test: bool = True,
    **summary: Any,
) -> Page:
    names = [*modalities, "+".join(modalities)] if len(modalities) > 1 else list(modalities)
    measured = {name: figures(0.25 + 0.25 * i, len(classes)) for i, name in enumerate(names)}
    client = {"modalities": list(modalities), "num_examples": 320, "losses": {"fused": 1.0}, "validation": measured,
              "bytes_up": 1000, "bytes_down": 2000,
              "seconds": {"load": 1.0, "evaluate": 0.2, "train": 3.0}}  # fmt: skip
    # Round 0 has no more than these three.
    lines: list[dict[str, Any]] = [{"round": 0, "test": measured if test else {}, "seconds": {"total": 0.4}}]
    for number in range(1, rounds + 1):
        lines.append({"round": number, "test": measured if test else {}, "validation": measured,
                      "losses": {"fused": 1 / number, "proximal": 0.001}, "clients": dict.fromkeys(sites, client),
                      "failed": {"client-9": "too <slow>"} if number > 1 else {}, "bytes_up": 1000 * len(sites),
                      "bytes_down": 2000 * len(sites),
                      "seconds": {"exchange": 7.1, "aggregate": 0.01, "evaluate": 0.4, "total": 7.5}})  # fmt: skip
    about = {"name": "a-run", "status": "completed", "reason": "", "engine": "processes", "method": "fedcmi",
             "strategy": "fedcmi", "dataset": "digits-mini", "seed": 1, "rounds": rounds,
             "modalities": list(modalities), "classes": list(classes),
             "accuracy": {name: value["accuracy"] for name, value in measured.items()},
             "accuracy_on": "test" if test else "validation", "macro_f1": 0.7, "bytes_up": 1, "bytes_down": 1,
             "seconds": 61.0, "refused": {}, "sites": {name: {"modalities": list(modalities), "num_examples": 320,
             "unreadable": 0} for name in sites}}  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    (folder / "experiment.yaml").write_text("name: <a-run>\n")
    (folder / "summary.json").write_text(json.dumps(about | summary))
    return read(folder)


def read(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert set(page.ids) >= SECTIONS | PLOTS
    assert len(page.ids) == len(set(page.ids))
    assert all(reference.startswith("#") for reference in page.references)
    assert "script" not in page.tags
    return page


def test_a_whole_run_has_every_plot_and_figure(tmp_path: Path) -> None:
    page = a_run(tmp_path)
    assert page.tags.count("svg") == 6
    for shown in ("75.0%", "70.0%", "audio alone", "1 min 1 s", "failed in rounds 2–3", "too <slow>", "name: <a-run>"):
        assert shown in page.text


def test_ten_classes_and_more_and_twenty_clients(tmp_path: Path) -> None:
    sites = tuple(f"client-{i}" for i in range(20))
    page = a_run(tmp_path, sites=sites, classes=tuple(f"class {i}" for i in range(60)))
    assert page.tags.count("svg") == 6
    assert all(name in page.text for name in sites)
    assert page.text.index("client-2") < page.text.index("client-10")
    assert "the 40 hardest of the 60 classes" in page.text


WEIGHED = {
    "weights": {"client-0": 0.4, "<b>1": 0.6},
    "similarity": {"sites": ["client-0", "<b>1"], "matrix": [[1.0, 0.3], [0.3, 1.0]]},
}


def weigh(folder: Path, aggregation: Any) -> Page:
    """The page of a run whose strategy said this in every round of training."""
    lines = [json.loads(entry) for entry in (folder / "metrics.jsonl").read_text().splitlines()]
    told = [{**entry, "aggregation": aggregation if entry["round"] else {}} for entry in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in told))
    return read(folder)


def test_similarity_and_weights_are_shown_where_the_strategy_tells_them(tmp_path: Path) -> None:
    assert not {"plot-similarity", "plot-weights"} & set(a_run(tmp_path).ids)
    page = weigh(tmp_path, WEIGHED)
    assert page.tags.count("svg") == 8
    assert {"plot-similarity", "plot-weights"} <= set(page.ids)
    for shown in ("0.30", "<b>1", "round 3", "from 0.3 to 1", "equal weights"):
        assert shown in page.text
    many = {f"client-{i}": 0.05 for i in range(20)}
    ones = {"sites": list(many), "matrix": [[1.0] * 20] * 20}
    assert weigh(tmp_path, {"weights": many, "similarity": ones}).tags.count("svg") == 8


@pytest.mark.parametrize("said", [{"weights": {}}, {"similarity": {"sites": ["a"], "matrix": []}}, {"weights": 3}])
def test_half_of_what_a_strategy_tells_still_gives_a_page(said: Any, tmp_path: Path) -> None:
    a_run(tmp_path)
    assert "says nothing" in weigh(tmp_path, said).text


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    page = a_run(tmp_path, sites=("<b>x", "_y", "$\\frac"), classes=("<b>x", "$a_$", "bell\x07", "字"), name="<i>r")
    assert "<b>x" in page.text and "<i>r" in page.text
    assert page.tags.count("i") == 3  # the bars of the table of subsets
    assert page.tags.count("b") == 1  # the accuracy in the lead


def test_a_failed_run_without_rounds_shows_its_reason(tmp_path: Path) -> None:
    page = a_run(tmp_path, rounds=0, sites=(), test=False, status="failed", reason="2 clients, 3 <needed>", accuracy={},
                 macro_f1=None, classes=(), refused={"<b>late": "no & yes"})  # fmt: skip
    for shown in ("failed", "2 clients, 3 <needed>", "<b>late", "no & yes"):
        assert shown in page.text
    assert "svg" not in page.tags


def test_one_modality_and_no_test_shard(tmp_path: Path) -> None:
    page = a_run(tmp_path, modalities=("audio",), test=False)
    assert "one modality only" in page.text
    assert "validation examples of the sites" in page.text
    assert page.tags.count("svg") == 5


def test_a_killed_run_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    a_run(tmp_path)
    (tmp_path / "summary.json").unlink()
    with (tmp_path / "metrics.jsonl").open("a") as lines:
        lines.write('{"round": 4, "te')
    page = read(tmp_path)
    assert "unfinished" in page.text and "After 3 rounds" in page.text


def test_an_empty_folder_still_gives_a_page(tmp_path: Path) -> None:
    assert "before any model was evaluated" in read(tmp_path).text


@pytest.mark.parametrize("rounds", [1, 60])
def test_the_same_run_gives_the_same_page(rounds: int, tmp_path: Path) -> None:
    a_run(tmp_path, rounds=rounds)
    first = (tmp_path / "report.html").read_bytes()
    assert write_report(tmp_path).read_bytes() == first
