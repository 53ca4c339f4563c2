"""docs/tutorial.md does what it says: its commands, in their order, in an empty folder."""

import json
import os
import re
from pathlib import Path

import pytest
from conftest import ROOT
from running import running

from deploy.engines import executable

CHANCE = 0.1


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_reader_of_the_tutorial_gets_from_folders_of_files_to_a_trained_model(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL | re.MULTILINE)
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

    run = tmp_path / "runs" / "my-experiment"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["engine"] == "processes"
    assert summary["accuracy_on"] == "test"
    held = {site: set(facts["modalities"]) for site, facts in summary["sites"].items()}
    assert held == {"north": {"audio", "image", "text"}, "south": {"audio", "image", "text"}, "east": {"image", "text"}}
    assert summary["accuracy"]["audio+image+text"] > 6 * CHANCE
    assert "</html>" in (run / "report.html").read_text()
    assert "This page stays at the site" in (tmp_path / "north.html").read_text()
    assert "every file can be read" in said
    assert "left out" not in said
