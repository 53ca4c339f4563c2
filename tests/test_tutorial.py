"""docs/tutorials/own-data.md does what it says: its commands, in their order, in an empty folder."""

import csv
import json
import os
import re
from pathlib import Path

import pytest
from conftest import ROOT
from running import running

from common.datasets.digits_mini import DigitsMini
from deploy.engines.launch import executable

CHANCE = 0.1
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_reader_of_the_tutorial_gets_from_folders_of_files_to_a_trained_model(tmp_path: Path) -> None:
    blocks = re.findall(
        r"^```sh\n(.*?)^```$", (ROOT / "docs" / "tutorials" / "own-data.md").read_text(), re.DOTALL | re.MULTILINE
    )
    script = "\n".join(["set -euo pipefail", *blocks])
    path = os.pathsep.join([str(Path(executable("fedmosaic")).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    output = tmp_path / "output"
    with (
        output.open("w") as file,
        running(["bash", "-c", script], cwd=tmp_path, env=env, stdout=file, stderr=file) as process,
    ):
        status = process.wait(timeout=1400)
    said = output.read_text()
    assert status == 0, said

    run = tmp_path / "runs" / "experiment"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    held = {site: set(facts["modalities"]) for site, facts in summary["sites"].items()}
    assert held == {"north": {"image", "text"}, "south": {"image"}}
    assert "</html>" in (run / "report.html").read_text()
    for words in ("separated by ';'", "cells of column Remark are empty", "labels are the names of the folders"):
        assert words in said
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = {row["id"]: row["prediction"] for row in csv.DictReader(file)}
    test = DigitsMini().examples("test", seed=1)[::5]
    right = [rows[str(number)] == WORDS[int(digit.label)] for number, digit in enumerate(test)]
    assert len(rows) == len(test)
    assert sum(right) / len(right) > 6 * CHANCE
