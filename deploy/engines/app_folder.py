"""The folder that Flower packs and sends to server and nodes: the installed code with a minimal pyproject.toml."""

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
    """Write the app into a new folder. `settings` becomes the run's configuration.

    The folder is a copy for two reasons. Flower's command line rewrites an app's pyproject.toml, and it packs all files
    of the folder.
    """
    for name, source in package_files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    # JSON strings are valid TOML basic strings.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in settings.items()]
    text = PYPROJECT.format(version=version("fedmosaic"), **COMPONENTS) + "".join(lines)
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
