"""The report of a run: one self-contained page that reads well whatever the run was like."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_folders import write_run

from server.report.page import write_report
from server.report.run import read_run
from server.report.sites import Likeness

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


def a_run(folder: Path, **kind: Any) -> Page:
    write_run(folder, **kind)
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
    for shown in ("75.0%", "0.750", "audio alone", "1 min 1 s", "failed in rounds 2–3", "too <slow>", "name: <a-run>"):
        assert shown in page.text


def test_the_table_of_sites_says_who_is_missing_since_when(tmp_path: Path) -> None:
    write_run(tmp_path, sites=("north", "south", "east"), refused={"west": "other classes"}, missing={"south": "gone"})
    lines = [json.loads(entry) for entry in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for number, missing in ((1, ["east"]), (2, ["south"]), (3, ["south"])):
        lines[number]["missing"] = dict.fromkeys(missing, "its node is not connected")
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    summary = json.loads((tmp_path / "summary.json").read_text())
    summary["sites"]["north"]["local_dp"] = "noise 0.5"
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    table = page[page.index('<section id="sites">') : page.index('<section id="troubles">')]
    rows = [re.sub("<[^>]*>", " ", row).split() for row in table.split("<tr>")[2:]]
    assert {row[0]: row[1 : row.index("audio") if "audio" in row else 2] for row in rows} == {
        "north": ["takes", "part,", "adds", "noise"],
        "south": ["missing", "since", "round", "2"],
        "east": ["takes", "part", "again"],
        "west": ["refused"],
    }
    assert 'title="was missing in round 1"' in table


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
    tell(folder, aggregation)
    return read(folder)


def tell(folder: Path, aggregation: Any) -> None:
    """Write into the lines of a run what its strategy said in every round of training."""
    lines = [json.loads(entry) for entry in (folder / "metrics.jsonl").read_text().splitlines()]
    told = [{**entry, "aggregation": aggregation if entry["round"] else {}} for entry in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in told))


def test_similarity_and_weights_are_shown_where_the_strategy_tells_them(tmp_path: Path) -> None:
    assert not {"plot-graph", "plot-similarity", "plot-weights"} & set(a_run(tmp_path).ids)
    page = weigh(tmp_path, WEIGHED)
    assert page.tags.count("svg") == 9
    assert {"plot-graph", "plot-similarity", "plot-weights"} <= set(page.ids)
    for shown in ("0.30", "<b>1", "CKA, round 3", "from 0.3 to 1", "equal weights"):
        assert shown in page.text
    named = weigh(tmp_path, {**WEIGHED, "similarity": {**WEIGHED["similarity"], "measure": "cosine of changes"}})
    assert "cosine of changes, round 3" in named.text and "CKA" not in named.text


def blocks(count: int, lonely: int) -> dict[str, Any]:
    """Sites of two kinds, alike within a kind, and one that is like none."""

    def alike(one: int, other: int) -> float:
        return 1.0 if one == other else 0.1 if lonely in (one, other) else 0.9 if one % 2 == other % 2 else 0.4

    sites = [f"client-{i}" for i in range(count)]
    matrix = [[alike(one, other) for other in range(count)] for one in range(count)]
    return {"weights": dict.fromkeys(sites, 1 / count), "similarity": {"sites": sites, "matrix": matrix}}


def test_a_hundred_sites_are_all_in_the_graph_and_the_odd_one_out_has_its_name_there(tmp_path: Path) -> None:
    write_run(tmp_path)
    page = weigh(tmp_path, blocks(100, lonely=71))
    assert page.tags.count("svg") == 9
    assert "the 40 of 100 sites that are least similar to the others" in page.text
    graph = plot_of(tmp_path, "graph")
    assert "client-71" in graph
    assert len(re.findall(r"<(?:use|path)[^>]*#44aa99", graph)) == 100


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_alike_sites_stand_near_each_other(count: int, tmp_path: Path) -> None:
    write_run(tmp_path)
    tell(tmp_path, blocks(count, lonely=-1))
    alike = Likeness.latest(read_run(tmp_path))
    assert alike is not None
    places = [complex(*place) for place in alike.layout()]
    pairs = [(one, other) for one in range(count) for other in range(one)]
    assert all(places[one] != places[other] for one, other in pairs)
    near = [abs(places[one] - places[other]) for one, other in pairs if one % 2 == other % 2]
    far = [abs(places[one] - places[other]) for one, other in pairs if one % 2 != other % 2]
    assert len(places) == count
    assert not (near and far) or sum(near) / len(near) < 0.7 * sum(far) / len(far)


def test_sites_whose_models_are_all_the_same_stand_apart() -> None:
    places = Likeness(1, "abcd", [[1.0] * 4] * 4).layout()
    assert len(set(places)) == 4


def plot_of(folder: Path, slug: str) -> str:
    html = (folder / "report.html").read_text()
    return html.split(f'id="plot-{slug}"')[1].split("</figure>")[0]


def test_a_modality_that_stopped_learning_is_named_on_the_page(tmp_path: Path) -> None:
    write_run(tmp_path, rounds=20)
    lines = [json.loads(entry) for entry in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for entry in lines:
        entry["test"]["audio"]["accuracy"] = 0.35  # of three classes
        entry["test"]["image"]["accuracy"] = 0.9
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    text = read(tmp_path).text
    assert "audio has stopped learning. Alone it reaches 35.0% (guessing: 33.3%)" in text
    assert "image alone reaches 90.0%." in text
    assert "image has stopped learning" not in text


@pytest.mark.parametrize("said", [{"weights": {}}, {"similarity": {"sites": ["a"], "matrix": []}}, {"weights": 3}])
def test_half_of_what_a_strategy_tells_still_gives_a_page(said: Any, tmp_path: Path) -> None:
    write_run(tmp_path)
    assert "does not" in weigh(tmp_path, said).text


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    page = a_run(tmp_path, sites=("<b>x", "_y", "$\\frac"), classes=("<b>x", "$a_$", "bell\x07", "字"), name="<i>r")
    assert "<b>x" in page.text and "<i>r" in page.text
    assert page.tags.count("i") == 3  # the bars of the table of subsets
    assert page.tags.count("b") == 1  # the accuracy in the lead


def test_a_failed_run_without_rounds_shows_its_reason(tmp_path: Path) -> None:
    page = a_run(tmp_path, rounds=0, sites=(), test=False, status="failed", reason="2 clients, 3 <needed>", scores={},
                 figures={}, classes=(), refused={"<b>late": "no & yes"})  # fmt: skip
    for shown in ("failed", "2 clients, 3 <needed>", "<b>late", "no & yes"):
        assert shown in page.text
    assert "svg" not in page.tags


def test_one_modality_and_no_test_shard(tmp_path: Path) -> None:
    page = a_run(tmp_path, modalities=("audio",), test=False)
    assert "one modality only" in page.text
    assert "validation examples of the sites" in page.text
    assert page.tags.count("svg") == 5


def test_a_killed_run_is_shown_as_far_as_it_got(tmp_path: Path) -> None:
    write_run(tmp_path)
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
