"""The smallest experiment of each method has the figures that its page states."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from common.config.component import own_names
from deploy.engines.launch import executable

ROW = re.compile(
    r"^\| `(?P<method>[a-z-]+)` \| `(?P<command>fedmosaic run [^`]+)` \| (?P<figures>[^|]+) \|", re.MULTILINE
)
FIGURE = re.compile(r"(?P<subset>[a-z+]+) (?P<value>[\d.]+)")
TOLERANCE = re.compile(r"within (\d+) points")
PAGE = (ROOT / "docs" / "methods.md").read_text().partition("### 4.2")[2].partition("\n## 5")[0]
ROWS = [match.groupdict() for match in ROW.finditer(PAGE)]


def test_every_method_has_a_row() -> None:
    assert sorted(row["method"] for row in ROWS) == own_names("method")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["method"]))
def test_the_command_gives_the_figures(row: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    program, *options = shlex.split(row["command"])
    command = [executable(program), *options, "--run-dir", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1400)
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "run" / "summary.json").read_text())["scores"]
    stated = {one["subset"]: float(one["value"]) for one in FIGURE.finditer(row["figures"])}
    (tolerance,) = map(float, TOLERANCE.findall(PAGE))
    assert stated.keys() == scores.keys()
    for subset, value in stated.items():
        assert 100 * scores[subset] == pytest.approx(value, abs=tolerance), subset
