"""The report of a run: self-contained, complete, and readable whatever the run was like."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from server.report import write_report

VOID = {"meta", "link", "br", "img", "use", "path", "rect"}


class Page(HTMLParser):
    """Checks that tags nest, and collects text, ids and references."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def figures(accuracy: float, classes: int) -> dict[str, Any]:
    recalls: list[float | None] = [accuracy] * classes
    recalls[-1] = None
    return {"accuracy": accuracy, "macro_f1": accuracy, "confidence": accuracy, "per_class": recalls, "examples": 50}


def line(number: int, sites: int, classes: int, modalities: list[str]) -> dict[str, Any]:
    names = [*modalities, "+".join(modalities)] if len(modalities) > 1 else modalities
    by_subset = {name: figures(0.1 * number + 0.01 * i, classes) for i, name in enumerate(names)}
    client = {"modalities": modalities, "num_examples": 9, "losses": {"fused": 1.0}, "validation": by_subset,
              "bytes_up": 1000, "bytes_down": 1000, "seconds": {"load": 1.0, "evaluate": 0.1, "train": 2.0}}  # fmt: skip
    clients = {f"site <{i}>": client for i in range(sites)} if number else {}
    return {"round": number, "test": by_subset, "validation": by_subset, "losses": {"fused": 1.0} if number else {},
            "clients": clients, "failed": {"site <0>": "NaN & more"} if number == 2 else {}, "bytes_up": 1000 * sites,
            "bytes_down": 1000 * sites,
            "seconds": {"exchange": 5.0, "aggregate": 0.1, "evaluate": 0.2, "total": 5.3}}  # fmt: skip


def write(folder: Path, rounds: int, sites: int = 3, classes: int = 4, **summary: Any) -> Page:
    modalities = summary.get("modalities", ["audio", "image"])
    about = {"name": "<run>", "status": "completed", "reason": "", "engine": "processes", "method": "fedcmi",
             "strategy": "fedcmi", "dataset": "d", "seed": 1, "seconds": 10.0, "bytes_up": 1, "bytes_down": 2}  # fmt: skip
    if rounds:
        about |= {
            "rounds": rounds, "modalities": modalities, "classes": [f"<class {i}>" for i in range(classes)],
            "accuracy": {"audio": 0.5, "image": 0.25, "audio+image": 0.75}, "accuracy_on": "test", "macro_f1": 0.7,
            "sites": {f"site <{i}>": {"modalities": modalities, "num_examples": 9, "unreadable": 2}
                      for i in range(sites)}, "refused": {"late <site>": "no & yes"},
        }  # fmt: skip
        lines = [json.dumps(line(number, sites, classes, modalities)) for number in range(rounds + 1)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "experiment.yaml").write_text("name: <run>\n")
    (folder / "summary.json").write_text(json.dumps(about | summary))
    return Page(write_report(folder).read_text())


@pytest.mark.parametrize(("sites", "classes"), [(3, 4), (20, 30)])
def test_a_complete_report(sites: int, classes: int, tmp_path: Path) -> None:
    page = write(tmp_path, rounds=3, sites=sites, classes=classes)
    for title in ("Accuracy by modalities at hand", "Imbalance between modalities", "Classes", "Loss terms",
                  "Data moved", "Time", "Sites", "Refused and failed", "Experiment"):  # fmt: skip
        assert title in page.text
    for shown in (
        "75.0 %",
        "0.700",
        "weakest modality alone: image",
        "site <0>",
        "late <site>",
        "no & yes",
        "NaN & more",
    ):
        assert shown in page.text
    assert page.tags.count("svg") == 6
    assert len(set(page.ids)) == len(page.ids)
    assert all(reference.startswith("#") or "data:" in reference for reference in page.references)
    assert "script" not in page.tags


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path, rounds=2)
    first = (tmp_path / "report.html").read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_a_run_that_failed_before_its_first_round_says_why(tmp_path: Path) -> None:
    page = write(tmp_path, rounds=0, status="failed", reason="site <x>: no usable example")
    assert "site <x>: no usable example" in page.text
    assert "No round was finished." in page.text


def test_one_modality(tmp_path: Path) -> None:
    page = write(tmp_path, rounds=2, modalities=["audio"], accuracy={"audio": 0.5})
    assert "weakest modality alone: audio" in page.text
