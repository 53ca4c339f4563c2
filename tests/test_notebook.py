"""docs/notebook.ipynb: it runs from its first cell to its last one, and is stored without outputs."""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

import fedmosaic

PATH = ROOT / "docs" / "notebook.ipynb"
MAGIC = re.compile(r"^( *)%.*$", re.M)
IMPORTED = {"os", "pathlib", "matplotlib", "pandas", "IPython", "PIL", "fedmosaic"}
PICTURES, TABLES = 6, 6


def code() -> list[str]:
    return [cell.source for cell in nbformat.read(PATH, as_version=4).cells if cell.cell_type == "code"]


def test_it_is_stored_without_outputs_and_uses_public_names_only() -> None:
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    tree = ast.parse(MAGIC.sub(r"\1pass", "\n".join(code())))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} == IMPORTED
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name) and node.value.id == "fedmosaic"}  # fmt: skip
    assert used == {"Shard", "compare", "inspect", "load_experiment", "run"}
    assert used <= set(fedmosaic.__all__)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(PATH, as_version=4)
    folder = tmp_path / "work"
    folder.mkdir()
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources=where).execute()
    made = outputs(notebook)
    assert not [output for output in made if output.output_type == "error" or output.get("name") == "stderr"]
    kinds = [kind for output in made for kind in output.get("data", {})]
    assert kinds.count("image/png") == PICTURES
    assert kinds.count("text/html") == TABLES
    assert {path.name for path in (folder / "runs").iterdir()} == {
        "fedavg-1", "fedavg-2", "fedavg-heads-1", "fedavg-heads-2"
    }  # fmt: skip
