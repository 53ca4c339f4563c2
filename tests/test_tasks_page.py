"""docs/how-to/tasks.md: its scripts read the layouts of the data sets, and its tables are those of the code."""

import csv
import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from pages import commands, files, sections
from PIL import Image
from test_cli import call

from common.config.component import find, names
from common.config.metrics import standard_metrics
from common.config.task import TaskName
from common.data.shard import Shard
from common.media.values import Value
from common.words.figures import TITLES

TEXT = (ROOT / "docs" / "how-to" / "tasks.md").read_text()


def write(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with gzip.open(file, "wt") if file.suffix == ".gz" else file.open("w") as target:
        table = csv.DictWriter(target, rows[0])
        table.writeheader()
        table.writerows(rows)


def run(script: str, section: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Shard]:
    """The shards of the commands in a section, after its script."""
    monkeypatch.chdir(folder)
    exec(files(TEXT)[script], {})
    shards = []
    for number, command in enumerate(commands(sections(TEXT)[section])):
        out = folder / f"shard-{number}"
        assert call(*command[:-1], str(out)) == 0, command
        shards.append(Shard.open(out))
    return shards


def test_ptb_xl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = [
        {"": "NORM", "description": "normal ECG", "diagnostic": "1.0", "diagnostic_class": "NORM"},
        {"": "IMI", "description": "inferior infarction", "diagnostic": "1.0", "diagnostic_class": "MI"},
        {"": "SR", "description": "sinus rhythm", "diagnostic": "", "diagnostic_class": ""},
    ]
    write(tmp_path / "scp_statements.csv", statements)
    codes = ["{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 0.0, 'NORM': 50.0}", "{'SR': 0.0}"]
    (tmp_path / "records").mkdir()
    rows = []
    for number, own in enumerate(codes, start=1):
        (np.arange(1000 * 12).reshape(1000, 12) % 700 - 300 + number).astype("<i2").tofile(
            tmp_path / "records" / f"{number}_lr.dat"
        )
        age = "" if number == 2 else f"{50.0 + number}"
        rows.append({"ecg_id": number, "age": age, "sex": number % 2, "scp_codes": own,
                     "filename_lr": f"records/{number}_lr"})  # fmt: skip
    write(tmp_path / "ptbxl_database.csv", rows)
    diagnoses, ages = run("ptb_xl.py", "PTB-XL", tmp_path, monkeypatch)
    assert diagnoses.info.classes == ["CD", "HYP", "MI", "NORM", "STTC"]
    assert {record.id: record.label for record in diagnoses.records} == {"1": ("NORM",), "2": ("MI", "NORM"), "3": ()}
    assert {name: column.type for name, column in diagnoses.columns["vitals"].items()} == {
        "age": "number", "sex": "category"
    }  # fmt: skip
    assert (ages.info.task, ages.info.classes, ages.info.rates) == ("regression", ["age"], {"ecg": 100.0})
    assert {record.id: record.label for record in ages.records} == {"1": (51.0,), "3": (53.0,)}
    values = Value(ages.records[0].files["ecg"]).read()
    assert isinstance(values, np.ndarray) and values.shape == (1000, 12)
    assert values[0, :2] == pytest.approx([-0.299, -0.298])


def test_mimic_cxr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "No Finding", "Pleural Effusion"]
    cells = {"50": ["1.0", "", "0.0", "-1.0", "", ""], "51": ["", "", "", "", "1.0", ""], "52": ["1.0"] + [""] * 5}
    labels = [{"subject_id": "10000032", "study_id": study, **dict(zip(listed, own, strict=True))}
              for study, own in cells.items()]  # fmt: skip
    write(tmp_path / "mimic-cxr-2.0.0-chexpert.csv.gz", labels)
    views = [("x", "50", "PA"), ("y", "50", "LATERAL"), ("z", "51", "AP"), ("w", "52", "LATERAL")]
    keys = ("dicom_id", "study_id", "ViewPosition")
    write(tmp_path / "mimic-cxr-2.0.0-metadata.csv.gz", [dict(zip(keys, view, strict=True)) for view in views])
    patient = tmp_path / "files" / "p10" / "p10000032"
    for name, study, _ in views:
        (patient / f"s{study}").mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 99).save(patient / f"s{study}" / f"{name}.jpg")
        (patient / f"s{study}.txt").write_text(f"report of {study}")
    (shard,) = run("mimic_cxr.py", "MIMIC-CXR", tmp_path, monkeypatch)
    assert shard.info.classes == [name for name in listed if name != "No Finding"]
    assert {record.id: record.label for record in shard.records} == {"50": ("Atelectasis",), "51": ()}
    assert [record.texts["report"] for record in shard.records] == ["report of 50", "report of 51"]
    assert all("image" in record.files for record in shard.records)


def cells(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading of the third level, by task."""
    (body,) = re.findall(rf"^### {heading}\n(.*?)(?=^##|\Z)", TEXT, re.M | re.S)
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \|$", body, re.M)
    return {task: listed.split(", ") for task, listed in rows}


def members(family: str, task: TaskName) -> Iterable[str]:
    return (name for name in names(family) if task in getattr(find(family, name), "tasks", ()))


def test_the_table_of_methods_is_that_of_the_code() -> None:
    found = cells("Methods")
    missing = sorted(set(names("method")).difference(members("method", "multi-label")))
    assert ", ".join(found["multi-label"]) == "all except " + ", ".join(f"`{name}`" for name in missing)
    assert found["regression"] == [f"`{name}`" for name in sorted(members("method", "regression"))]


def test_the_table_of_metrics_is_that_of_the_code() -> None:
    found = cells("Metrics")
    for task in ("single-label", "regression"):
        assert {name.casefold() for name in found[task]} == {TITLES[key].casefold() for key in standard_metrics(task)}
    assert found["multi-label"] == ["the same", "label accuracy and micro-F1"]
    more = standard_metrics("multi-label").keys() - standard_metrics("single-label").keys()
    assert more == {"label_accuracy", "micro_f1"}
