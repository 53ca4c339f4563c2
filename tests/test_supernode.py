"""The fixed waits of Flower's SuperNode and ClientApp, and what becomes of them."""

import importlib
import importlib.util
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.hosts import supernode
from deploy.hosts.clientapp import commands_folder
from deploy.hosts.start import environment
from deploy.hosts.supernode import Waits, narrow, unlike

FLOWER = "flwr.supernode.start_client_internal"


def copy_of_flowers(folder: Path, old: str = "", new: str = "") -> ModuleType:
    found = importlib.util.find_spec(FLOWER)
    assert found and found.origin
    text = Path(found.origin).read_text()
    assert old in text
    path = folder / "changed.py"
    path.write_text(text.replace(old, new, 1))
    spec = importlib.util.spec_from_file_location("changed", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_waits_are_those_of_the_installed_flower() -> None:
    assert unlike(importlib.import_module(FLOWER)) == ""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("time.sleep(3)", "time.sleep(2)", "it waits with"),
        ("time.sleep(3)", "wait(3)", "it waits with"),
        ("time.sleep(3)", "time.sleep(interval)", "it waits with"),
        ("run_id = None", "run_id = time.time()", "more than sleeping"),
        ("def _insert_message", "pull_objects = print\n\n\ndef _insert_message", "in another way"),
    ],
)
def test_another_flower_is_noticed(old: str, new: str, expected: str, tmp_path: Path) -> None:
    if old == "run_id = None":
        old, new = "if run_id is None:", "if time.time() and run_id is None:"
    assert expected in unlike(copy_of_flowers(tmp_path, old, new))


def test_only_that_modules_waits_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flower: Any = copy_of_flowers(tmp_path)
    original = flower.pull_objects
    narrow(flower)
    assert isinstance(flower.time, Waits)
    assert flower.pull_objects.func is original
    assert importlib.import_module(FLOWER).time is time

    missing, waited = iter([True, True, False]), []
    wait = threading.Event.wait

    def at_once(event: threading.Event, timeout: float | None = None) -> bool:
        """Without a limit of time it is a thread that waits for another to start."""
        return wait(event) if timeout is None else bool(waited.append(timeout))

    monkeypatch.setattr(threading.Event, "wait", at_once)

    def pull(name: str) -> bytes:
        if next(missing):
            raise flower_error()
        return b"there"

    assert flower.pull_objects(["part"], pull_object_fn=pull) == {"part": b"there"}
    assert waited == pytest.approx([0.05, 0.1], rel=0.3)  # Flower would wait for 1 s and 2 s, and varies it by a fifth


def flower_error() -> Exception:
    from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

    return ObjectUnavailableError("part")


@given(st.lists(st.sampled_from([3, 0.5]), max_size=80))
def test_a_node_waits_a_tenth_of_its_idle_time_at_least_and_at_most_as_long_as_flower(asked: list[float]) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supernode, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
        waits, busy = Waits(), 100.0
        for seconds in asked:
            if seconds == 0.5:
                busy = now[0]
            idle = now[0] - busy
            waits.sleep(seconds)
            assert 0 < slept[-1] <= seconds
            assert seconds == 0.5 or slept[-1] <= max(0.1, idle / 10 + 1e-9)
            assert seconds == 0.5 or idle < 30 or slept[-1] == 3


@pytest.mark.parametrize("mistake", ["", "it sleeps elsewhere"])
def test_the_node_starts_on_any_flower_and_says_when_its_waits_are_flowers(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flower: Any = copy_of_flowers(tmp_path)
    modules = {FLOWER: flower, "flwr.supernode.cli.flower_supernode": SimpleNamespace(flower_supernode=lambda: 7)}
    monkeypatch.setattr(supernode, "importlib", SimpleNamespace(import_module=modules.__getitem__))
    monkeypatch.setattr(supernode, "unlike", lambda _: mistake)
    with pytest.raises(SystemExit) as ended:
        supernode.main()
    assert ended.value.code == 7
    assert (flower.time is time) == bool(mistake)
    said = f"fedmosaic: this version of Flower is different ({mistake}), so its SuperNode keeps Flower's waits\n"
    assert capsys.readouterr().err == (said if mistake else "")


def test_the_clientapps_command_loads_neither_supernode_nor_installer_nor_torch() -> None:
    code = "import atexit, sys; from deploy.hosts.clientapp import main; sys.argv[1:] = ['--help']\n"
    code += "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "--token" in done.stdout
    loaded = set(done.stderr.split())
    assert "flwr.supernode.runtime.run_clientapp" in loaded
    assert not loaded & {"torch", "sqlalchemy", "flwr.supernode.cli", "flwr.cli", "transformers"}


def test_the_supernodes_command_has_flowers_options() -> None:
    command, env = [commands_folder() / "flower-supernode", "--help"], environment([])
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0
    assert "--auth-supernode-private-key" in done.stdout and "Flower's waits" not in done.stderr
