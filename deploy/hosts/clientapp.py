"""The commands that a node starts for a task. They run only the code that is installed at the site.

Flower sends an app's code with every run, and Flower's nodes install and run this code. The server could then ignore a
site's policy. A SuperNode, or its SuperExec, starts `flwr-clientapp` and similar commands by name. With
`commands_folder` first on PATH, it starts the commands of this package instead. They always run the installed release.
They also compare the sent code with it, so that the server learns of a difference.
"""

import io
import os
import sys
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from common.errors import PolicyError, RunError
from common.exchange.flower_parts import PARTS
from deploy.hosts.release import COMPONENTS, package_files

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp

LARGEST = 32 << 20
"""The maximum number of bytes of an unpacked app."""
MOST_LISTED = 3
PROJECT = "pyproject.toml"
COMMANDS = ("agentapp", "clientapp", "connector", "model", "serverapp", "simulation")
"""The kinds of task for which Flower starts a command. The server chooses the kind."""
SUPERNODE = "flower-supernode"
"""Flower's SuperNode with shorter waits: `deploy/hosts/supernode.py`."""
SUPEREXEC = "flower-superexec"
"""Flower's SuperExec with hidden tokens: `deploy/hosts/superexec.py`."""


def main() -> None:
    """`flwr-clientapp` with three replaced steps: installing the app, installing its dependencies, and loading it."""
    _leave_out()
    flower = import_module("flwr.supernode.runtime.run_clientapp")
    replaced = {
        "install_from_fab": _compare,
        "install_app_dependencies": _refuse_dependencies,
        "get_load_client_app_fn": _load_installed,
        "pull_and_inflate_object_from_tree": partial(flower.pull_and_inflate_object_from_tree, **PARTS),
    }
    for name, ours in replaced.items():
        if not hasattr(flower, name):
            raise RunError(f"this version of Flower has no {name}: its nodes cannot be limited to the installed code")
        setattr(flower, name, ours)
    _command(flower).flwr_clientapp()


def _leave_out() -> None:
    """Replace modules that Flower's command loads for every message and does not use here.

    These are the installer of apps with Flower's command line (0.2 s), FastAPI, of which a client needs only the names
    of status codes (0.13 s), secure aggregation of the legacy interface with its cryptography (0.05 s), and httpx's own
    command line (0.05 s).
    """
    used: dict[str, dict[str, Any]] = {
        "flwr.cli.install": {"install_from_fab": _compare},
        "flwr.supercore.error.http": {"BearerAuthenticationError": RunError, "http_error_translator": None},
        "fastapi": {"status": import_module("starlette.status")},
        "flwr.client.mod.secure_aggregation": {"secagg_mod": None, "secaggplus_mod": None},
        "httpx._main": {"main": lambda: None},
    }
    for name, values in used.items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__dict__.update(values)


def _command(flower: ModuleType) -> ModuleType:
    """Flower's command, loaded from its file. Its package would also load the SuperNode, which takes 0.7 s per
    message."""
    assert flower.__file__
    path = Path(flower.__file__).parents[1] / "cli" / "flwr_clientapp.py"
    spec = spec_from_file_location("flwr_clientapp", path)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands_folder() -> Path:
    """The folder that must be first on the PATH of a site's SuperNode and SuperExec.

    Raises RunError when a command in it is not executable, because the shell would then find Flower's command.
    """
    folder = Path(__file__).resolve().parent / "bin"
    for command in (*(f"flwr-{task}" for task in COMMANDS), SUPERNODE, SUPEREXEC):
        if not os.access(folder / command, os.X_OK):
            raise RunError(f"{folder}/{command} is not executable: chmod 755 {folder}/*")
    return folder


def check_fab(content: bytes) -> None:
    """Compare an app, as packed by Flower, with the installed release.

    Raises PolicyError when files differ, are missing or are added, or when entry points differ.
    """
    sent = _unpacked(content)
    project = _project(sent.pop(PROJECT, b""))
    differences = []
    if _at(project, "tool", "flwr", "app", "components") != COMPONENTS:
        differences.append("other entry points")
    installed = {name: path.read_bytes() for name, path in package_files().items() if name.endswith(".py")}
    for name in sorted(sent.keys() | installed.keys()):
        if name not in installed:
            differences.append(f"{name} is not part of the release")
        elif sent.get(name) != installed[name]:
            differences.append(f"{name} {'differs' if name in sent else 'is missing'}")
    if differences:
        more = f" and {len(differences) - MOST_LISTED} more" if len(differences) > MOST_LISTED else ""
        raise PolicyError(
            f"the app differs from the release installed at this site ({', '.join(differences[:MOST_LISTED])}{more}); "
            f"installed: {version('fedmosaic')}, sent: {str(_at(project, 'project', 'version'))[:20]}"
        )


def _unpacked(content: bytes) -> dict[str, bytes]:
    """The files of an app by name, without Flower's list of files."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = [entry for entry in archive.infolist() if not entry.is_dir() and entry.filename != ".info/CONTENT"]
            if sum(entry.file_size for entry in files) > LARGEST:
                raise PolicyError(f"the app is larger than {LARGEST >> 20} MiB")
            return {entry.filename: archive.read(entry) for entry in files}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise PolicyError(f"the app cannot be unpacked: {error}") from None


def _project(text: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"the app's {PROJECT} cannot be read: {error}") from None


def _at(project: Any, *keys: str) -> Any:
    """The value at a path of keys in nested tables, or None if there is no such value."""
    for key in keys:
        project = project.get(key) if isinstance(project, dict) else None
    return project


def _compare(content: bytes, skip_prompt: bool) -> None:
    """Replacement for installing an app."""
    check_fab(content)


def _refuse_dependencies(*_: object, **__: object) -> NoReturn:
    """Replacement for installing the packages that an app names."""
    raise PolicyError("this node runs only installed code: start it without --allow-runtime-dependency-installation")


def _load_installed(**_: object) -> Callable[[str, str, str], "ClientApp"]:
    """Replacement for loading the sent app. The result loads the installed app."""

    def load(fab_id: str, fab_version: str, fab_hash: str) -> "ClientApp":
        from client.app import app

        return app

    return load
