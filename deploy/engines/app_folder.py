"""The folder that Flower packs and sends to server and nodes: our installed code with a minimal pyproject.toml."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from deploy.hosts.release import COMPONENTS, package_files

PYPROJECT = """[project]
name = "fedmosaic"
version = "{version}"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fedmosaic"

[tool.flwr.app.components]
serverapp = "{serverapp}"
clientapp = "{clientapp}"

[tool.flwr.app.config]
"""


def make_app_folder(folder: Path, settings: dict[str, str]) -> None:
    """Write the app into a new folder; `settings` become the run's configuration.

    A copy, so that Flower's command line, which rewrites an app's pyproject.toml, does not touch the installation, and
    so that packing does not depend on what else lies beside the code.
    """
    for name, source in package_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    # JSON strings are valid TOML basic strings.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings.items()]
    text = PYPROJECT.format(version=version("fedmosaic"), **COMPONENTS) + "".join(lines)
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
