"""Plugins as they are installed: a package and its .dist-info in a folder of the path."""

import shutil
from pathlib import Path

from common.config import plugins, reading
from deploy.plugin.template import EXAMPLES, package_of, write_plugin


def install(site: Path, name: str, family: str = "method", version: str = "0.1.0") -> Path:
    """Install the example of a family into a folder; the package's folder."""
    source = site.parent / f"{name}-{version}-source"
    source.mkdir(parents=True)
    write_plugin(source, name, family)
    package = site / package_of(name)
    site.mkdir(exist_ok=True)
    shutil.copytree(source / package_of(name), package)
    info = site / f"{package_of(name)}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = {}
    for of, module in EXAMPLES[family].members.items():
        groups.setdefault(plugins.group(of), []).append(f"{module.replace('_', '-')} = {package_of(name)}.{module}")
    text = "".join(f"[{group}]\n" + "\n".join(lines) + "\n" for group, lines in groups.items())
    (info / "entry_points.txt").write_text(text)
    return package


def forget() -> None:
    """Let the next look see what is installed now, as a new process would."""
    for kept in (plugins._found, plugins._identified, plugins._loaded, reading.plugins_at_sites):
        kept.cache_clear()
