"""The files of the installed release that Flower packs into an app. Every node compares an app with them."""

from importlib.util import find_spec
from pathlib import Path

PACKAGES = ["server", "client", "common"]
LEFT_OUT = {"__pycache__", "assets"}
COMPONENTS = {"serverapp": "server.app:app", "clientapp": "client.app:app"}


def package_files() -> dict[str, Path]:
    """The installed files of the app, by their name in the app, e.g. "client/site.py"."""
    files = {}
    for package in PACKAGES:
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        source = Path(next(iter(spec.submodule_search_locations)))
        for path in sorted(source.rglob("*")):
            inner = path.relative_to(source)
            if path.is_file() and not LEFT_OUT & set(inner.parts):
                files[f"{package}/{inner.as_posix()}"] = path
    return files
