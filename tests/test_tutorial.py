"""The tutorials: their commands in their order, in an empty folder, give what the pages promise."""

import ast
import csv
import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT
from pages import FENCE, commands, files, sections
from running import running

from common.datasets.digits_mini import DigitsMini
from deploy.engines.launch import executable
from deploy.engines.processes import Processes, free_ports, wait_for_port

CHANCE = 0.1
TUTORIALS = ROOT / "docs" / "tutorials"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def run_script(script: str, folder: Path) -> str:
    """The output of a page's commands in an empty folder."""
    path = os.pathsep.join([str(Path(executable("fedmosaic")).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    output = folder / "output"
    with (
        output.open("w") as file,
        running(
            ["bash", "-c", f"set -euo pipefail\n{script}"], cwd=folder, env=env, stdout=file, stderr=file
        ) as process,
    ):
        status = process.wait(timeout=1400)
    said = output.read_text()
    assert status == 0, said
    return said


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_reader_of_the_tutorial_gets_from_folders_of_files_to_a_trained_model(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (TUTORIALS / "own-data.md").read_text(), re.DOTALL | re.MULTILINE)
    said = run_script("\n".join(blocks), tmp_path)

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


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_reader_of_the_how_to_page_gets_from_folders_of_files_to_a_table_of_methods(tmp_path: Path) -> None:
    """With three rounds, for speed."""
    text = (ROOT / "docs" / "how-to" / "bench-own-data.md").read_text()
    assert len(list(commands(text))) < 10
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    bench = "fedmosaic bench study/suite.yaml"
    assert bench in script
    run_script(script.replace(bench, f"{bench} --set federation.rounds=3"), tmp_path)

    out = tmp_path / "bench" / "study"
    table = (out / "study-own.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| ") and " ± " in line]
    assert len(rows) == 2 * 5 and sum("[" in row for row in rows) == 4
    for name in re.findall(r"^\| `(.*?)` \|", text, re.M):
        assert all((out / file).stat().st_size for file in name.split("`, `")), name
    content = json.loads((out / "study-own.json").read_text())
    assert content["rows"]["fedavg"]["measures"]["accuracy"]["mean"] > 2 * CHANCE
    assert set(content["rows"]["fedavg"]["measures"]["accuracy"]["values"]) == {"1", "2", "3"}


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_reader_of_several_hosts_trains_two_sites_over_encrypted_connections(tmp_path: Path) -> None:
    """On one machine, with ports that are free."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    fleet, control, north, south = free_ports(4)
    text = (TUTORIALS / "several-hosts.md").read_text()
    for written, port in (("localhost:9092", f"localhost:{fleet}"), ("localhost:8000", f"localhost:{control}"),
                          ("--port 9095", f"--port {south}"), ("$PWD", str(tmp_path))):  # fmt: skip
        assert written in text
        text = text.replace(written, port)
    more = {
        "superlink": ["--port", str(control), "--fleet-address", f"127.0.0.1:{fleet}"],
        "node": ["--port", str(north)],
    }
    processes = Processes(tmp_path / "logs", {"PYTHONPATH": str(ROOT)})
    try:
        for number, (command, *arguments) in enumerate(commands(text)):
            own = [] if "--port" in arguments else more.get(command, [])
            call = [executable("fedmosaic"), command, *arguments, *own]
            if command in ("superlink", "node"):
                processes.start(f"{command}-{number}", call, tmp_path)
            else:
                env = {**os.environ, "PYTHONPATH": str(ROOT)}
                done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1000)
                if command == "doctor":  # its status depends on the ports that others use on this machine
                    assert "proved its name" in done.stdout
                else:
                    assert done.returncode == 0, shlex.join(call) + done.stdout + done.stderr
            if command == "superlink":
                for port in (fleet, control):
                    wait_for_port(port, processes, 120)
                deadline = time.monotonic() + 120
                while not (tmp_path / "state" / "operator.token").exists():
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
        processes.check()
    finally:
        processes.stop()
    summary = json.loads((tmp_path / "runs" / "two-sites" / "summary.json").read_text())
    assert summary["status"] == "completed"
    held = {site: set(facts["modalities"]) for site, facts in summary["sites"].items()}
    assert held == {"north": {"audio", "image"}, "south": {"audio"}}
    assert summary["measured_on"] == "test"


def bare(source: str) -> str:
    """Code without docstrings and comments, imports in order."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body
                         if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]  # fmt: skip
    imports = [part for part in tree.body if isinstance(part, ast.Import | ast.ImportFrom)]
    tree.body = [*sorted(imports, key=ast.unparse), *(part for part in tree.body if part not in imports)]
    return re.sub(r"    pass\n", "", ast.unparse(tree))


def test_the_steps_of_write_a_method_end_at_the_file_of_extend() -> None:
    text = (TUTORIALS / "write-a-method.md").read_text()
    first, loss, option = (block for language, _, block in FENCE.findall(text) if language == "python")
    _, replaced = first.split('        """CE(u, y)."""\n')
    made = first.replace(replaced, loss.replace("** 2 *", "** self.gamma *"))
    strategy = '    strategy: ClassVar[str] = "fedcmi"\n'
    made = made.replace(strategy, f"{strategy}\n{option}").replace(
        "from torch import Tensor\n", "from pydantic import Field\nfrom torch import Tensor\n"
    )
    whole = files(sections((ROOT / "docs" / "extend.md").read_text())["A method"])["client/methods/focal.py"]
    assert bare(made) == bare(whole)
