"""Folders that are there whole or not at all, also where a volume is mounted."""

import os
import subprocess
from pathlib import Path

import pytest

from common.files import UNFINISHED, is_free, whole_folder


def made(folder: Path) -> list[str]:
    with whole_folder(folder) as inside:
        (inside / "sub").mkdir()
        (inside / "sub" / "a").write_text("a")
        (inside / "last").write_text("b")
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("there", [False, True])
class TestWhole:
    def folder(self, tmp_path: Path, there: bool) -> Path:
        folder = tmp_path / "deeper" / "out"
        if there:
            folder.mkdir(parents=True)
        return folder

    def test_everything_is_there_and_nothing_else(self, tmp_path: Path, there: bool) -> None:
        folder = self.folder(tmp_path, there)
        assert made(folder) == ["last", "sub"]
        assert (folder / "sub" / "a").read_text() == "a"
        assert [path.name for path in folder.parent.iterdir()] == ["out"]

    def test_an_error_leaves_nothing(self, tmp_path: Path, there: bool) -> None:
        folder = self.folder(tmp_path, there)
        with pytest.raises(KeyError), whole_folder(folder) as inside:
            (inside / "a").write_text("a")
            assert there == (inside.parent == folder)
            raise KeyError
        assert folder.exists() == there
        assert is_free(folder)
        assert there is False or list(folder.iterdir()) == []

    def test_what_an_interrupted_command_left_is_no_content(self, tmp_path: Path, there: bool) -> None:
        folder = self.folder(tmp_path, there)
        left = folder / UNFINISHED if there else folder.with_name(f".out{UNFINISHED}")
        left.mkdir(parents=True)
        (left / "old").write_text("old")
        assert is_free(folder)
        assert made(folder) == ["last", "sub"]


def test_what_is_not_free(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert is_free(tmp_path)
    (tmp_path / "own").write_text("")
    assert not is_free(tmp_path)
    assert not is_free(tmp_path / "own")


def test_a_volume_in_a_read_only_root(tmp_path: Path) -> None:
    """As in a container: nothing can be written beside the volume, and the volume cannot be renamed."""
    root = tmp_path / "root"
    (root / "volume").mkdir(parents=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "none", root], capture_output=True).returncode:
        pytest.skip("mounting takes root")
    try:
        (root / "volume").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", root / "volume"], check=True)
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        with pytest.raises(OSError):
            (root / "beside").mkdir()
        assert made(root / "volume") == ["last", "sub"]
    finally:
        subprocess.run(["umount", root / "volume"], check=False, capture_output=True)
        subprocess.run(["umount", root], check=True)
