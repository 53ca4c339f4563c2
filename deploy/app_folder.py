"""The folder that Flower packs and sends to server and nodes: our installed code with a minimal pyproject.toml."""

import json
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ["server", "client", "common"]
PYPROJECT = """[project]
name = "fedmosaic"
version = "{version}"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedmosaic"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
"""


def make_app_folder(folder: Path, settings: dict[str, str]) -> None:
    """Write the app into a new folder; `settings` become the run's configuration.

    A copy, so that Flower's command line, which rewrites an app's pyproject.toml, does not touch the installation, and
    so that packing does not depend on what else lies beside the code.
    """
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        source = Path(next(iter(spec.submodule_search_locations)))
        ignored = shutil.ignore_patterns("__pycache__", "assets")
        shutil.copytree(source, folder / package, ignore=ignored)
    # JSON strings are valid TOML basic strings.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings.items()]
    text = PYPROJECT.format(version=version("fedmosaic")) + "".join(lines)
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
