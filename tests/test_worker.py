"""The resident worker, in real processes.

Most tests replace the site by a small one without torch, in a copy of the code, that tells which process answered.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, experiment
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from client import site
from client.resident import connection as resident
from client.resident import frames
from client.resident.connection import NoWorkerError, private_folder
from common import lifetime
from common.blocks import get_params, select
from common.build import build_model
from common.exchange import wire
from deploy.engines.processes import MARK, kill_marked, marked

CLIENT = """
import hashlib, json, os, sys
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from client.app import app
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
told = json.loads(sys.argv[1])
content = RecordDict({"body": ConfigRecord({"json": told["body"]})})
if told["params"]:
    content["params"] = ArrayRecord({"params": Array(np.fromfile(told["params"], np.uint8))})
message = Message(content, dst_node_id=1, message_type=told["kind"])
context = Context(run_id=1, node_id=1, node_config=told["node"], state=RecordDict(), run_config={})
reply = app(message, context).content
arrays = [array.data for record in reply.array_records.values() for array in record.values()]
with open(f"{sys.argv[2]}/answer-{os.getpid()}", "w") as file:
    json.dump({
        "body": json.loads(reply.config_records["body"]["json"]), "torch": "torch" in sys.modules,
        "client": os.getpid(),
        "params": hashlib.sha256(b"".join(arrays)).hexdigest() if arrays else "",
    }, file)
"""
"""A process that does with a message what Flower's does."""
SITE = """
import json, os, signal, time
from flwr.app import ConfigRecord, RecordDict

class Site:
    device_failed = False

    def __init__(self, folder, name="", policy=None, hardware=None):
        self.given, self.answers = [str(folder), name, str(policy)], 0

    def answer(self, message):
        asked = json.loads(message.content.config_records["body"]["json"])
        if asked.get("do") == "raise":
            raise ZeroDivisionError("a mistake of the code")
        if asked.get("do") == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if asked.get("do") == "train long":
            print("training long", flush=True)
            time.sleep(1000)
        self.answers += 1
        said = {"worker": os.getpid(), "answers": self.answers, "given": self.given, "code": CODE,
                "models": os.environ.get("FEDMOSAIC_MODELS"), "kind": message.metadata.message_type}
        return RecordDict({"body": ConfigRecord({"json": json.dumps(said)})})
"""
HARDWARE = """
class Hardware:
    @staticmethod
    def of_node(settings):
        return settings
"""


@dataclass
class Node:
    """What starts ClientApp processes; what they leave behind is found by a mark."""

    folder: Path
    code: Path
    shard: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    settings: dict[str, str] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, do: str = "", before: list[str] | None = None, **more: Any) -> subprocess.Popen[bytes]:
        node = {"shard": str(self.shard), **self.settings}
        told = {"body": json.dumps({"do": do}), "params": "", "kind": "train", "node": node, **more}
        ours = {"PYTHONPATH": str(self.code), "XDG_RUNTIME_DIR": str(self.folder), MARK: self.mark}
        env = {**os.environ, **ours, **self.env}
        command = [*(before or []), sys.executable, "-c", CLIENT, json.dumps(told)]
        with (self.folder / "log").open("ab") as log:
            self.started.append(subprocess.Popen([*command, str(self.folder)], cwd=self.folder, env=env, stderr=log))
        return self.started[-1]

    def result(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.wait(timeout=300) == 0, self.log
        answer: dict[str, Any] = json.loads((self.folder / f"answer-{process.pid}").read_text())
        return answer

    def ask(self, do: str = "", **more: Any) -> dict[str, Any]:
        return self.result(self.start(do, **more))

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def workers(self) -> list[int]:
        found = []
        for pid in marked(self.mark):
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if b"client.resident.worker" in Path(f"/proc/{pid}/cmdline").read_bytes() and state != "Z":
                    found.append(pid)
            except OSError:
                continue
        return found

    def wait_until(self, holds: Callable[[], bool], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)


def small_code(folder: Path, version: str) -> Path:
    """A copy of the code with a site without torch."""
    ignore = shutil.ignore_patterns("__pycache__", "assets", "methods", "completion", "datasets", "models")
    for package in ("client", "common"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignore)
    (folder / "client" / "site.py").write_text(f"CODE = {version!r}\n{SITE}")
    (folder / "common" / "hardware" / "computing.py").write_text(HARDWARE)
    return folder


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="w-") as folder:  # paths of sockets must be short
        shard = tmp_path / "shard"
        shard.mkdir()
        (shard / "metadata.jsonl").write_text("{}")
        made = Node(Path(folder), small_code(tmp_path / "code", "first"), shard)
        yield made
        kill_marked(made.mark)
        for process in made.started:
            process.wait()


@pytest.mark.parametrize(
    "sent",
    [["train"], pytest.param(["query", "train", "malformed"], marks=pytest.mark.slow)],
    ids="-".join,
)
def test_with_and_without_a_worker_the_site_says_the_same(sent: list[str], node: Node, tiny_shards: Path) -> None:
    node.code, node.shard = ROOT, tiny_shards / "client-1"
    chosen, held = experiment(), ["audio", "image"]
    packed = node.folder / "params"
    (array,) = wire.pack(select(get_params(build_model(chosen, 10)), held)).values()
    array.numpy().tofile(packed)
    training = {"experiment": chosen.to_json(), "round": 1, "modalities": held}
    known = {
        "query": {"kind": "query", "body": json.dumps({"experiment": chosen.to_json()})},
        "train": {"kind": "train", "body": json.dumps(training), "params": str(packed)},
        "malformed": {"kind": "train", "body": json.dumps({**training, "round": "first"}), "params": str(packed)},
    }
    messages = [known[name] for name in sent]
    resident_answers = [node.ask(**message) for message in messages]
    assert len(node.workers()) == 1
    node.env["FEDMOSAIC_WORKER_MINUTES"] = "0"
    alone = [node.ask(**message) for message in messages]
    for here, there in zip(alone, resident_answers, strict=True):
        assert here["body"].pop("seconds", {}).keys() == there["body"].pop("seconds", {}).keys()
        assert (here["body"], here["params"]) == (there["body"], there["params"])
        assert (here["torch"], there["torch"]) == (True, False)
    answers = dict(zip(sent, alone, strict=True))
    assert answers["train"]["params"] and answers["train"]["body"]["losses"]
    assert "malformed" not in sent or "malformed request" in answers["malformed"]["body"]["error"]
    assert node.log.count("without a resident worker: FEDMOSAIC_WORKER_MINUTES is 0") == len(alone)


def test_a_site_keeps_the_examples_of_the_last_few_sets_of_encoders(
    tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "KEPT", 2)
    kept = site.Site(tiny_shards / "client-1")
    narrow, wide, small = (experiment(model__encoders__image__size=size) for size in (8, 16, 24))
    first, second = kept.open(narrow).loaded, kept.open(wide).loaded
    assert kept.open(narrow).loaded is first
    assert kept.open(small).loaded is not second
    assert kept.open(wide).loaded is second
    assert kept.open(narrow).loaded is not first


def test_one_worker_answers_one_message_after_the_other_and_is_closed_to_others(node: Node, tmp_path: Path) -> None:
    node.settings = {"site": "a", "policy": str(tmp_path / "site.yaml")}
    node.env = {"FEDMOSAIC_MODELS": "here"}
    first, second = node.ask(kind="query")["body"], node.ask()["body"]
    assert (first["kind"], second["kind"]) == ("query", "train")
    assert [first["answers"], second["answers"]] == [1, 2]
    assert node.workers() == [first["worker"]] == [second["worker"]]
    assert second["given"] == [str(node.shard), "a", str(tmp_path / "site.yaml")]
    assert second["models"] == "here"
    folder = node.folder / "fedmosaic"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        ".sock": 0o600, ".lock": 0o600,
    }  # fmt: skip


def test_a_race_of_messages_starts_one_worker_a_shard(node: Node, tmp_path: Path) -> None:
    racing = [node.start() for _ in range(4)]
    answers = [node.result(process)["body"] for process in racing]
    assert sorted(answer["answers"] for answer in answers) == [1, 2, 3, 4]
    assert node.workers() == [answers[0]["worker"]]
    shutil.copytree(node.shard, tmp_path / "another")
    node.shard = tmp_path / "another"
    assert node.ask()["body"]["answers"] == 1
    assert len(node.workers()) == 2


def change_code(node: Node) -> None:
    site = node.code / "client" / "site.py"
    site.write_text(site.read_text().replace("'first'", "'second'"))


def change_folder(node: Node) -> None:
    node.code = small_code(node.code.parent / "release", "second")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change_code, id="code"),
        pytest.param(change_folder, id="folder", marks=pytest.mark.slow),
        pytest.param(lambda node: node.settings.update(site="another"), id="site", marks=pytest.mark.slow),
        pytest.param(lambda node: node.settings.update(policy="site.yaml"), id="policy"),
        pytest.param(lambda node: node.env.update(FEDMOSAIC_MODELS="elsewhere"), id="models", marks=pytest.mark.slow),
        pytest.param(lambda node: os.kill(node.workers()[0], signal.SIGKILL), id="killed"),
    ],
)
def test_a_worker_is_replaced(change: Callable[[Node], None], node: Node) -> None:
    old = node.ask()["body"]
    change(node)
    new = node.ask()["body"]
    assert new["answers"] == 1
    assert node.workers() == [new["worker"]] != [old["worker"]]
    assert new["code"] == ("second" if change in (change_code, change_folder) else "first")
    assert new["models"] == node.env.get("FEDMOSAIC_MODELS")
    assert new["given"][1:] == [node.settings.get("site", ""), node.settings.get("policy", "None")]


def test_a_changed_shard_is_read_anew_by_the_same_worker(node: Node) -> None:
    old = node.ask()["body"]
    (node.shard / "metadata.jsonl").write_text("{} {}")
    new = node.ask()["body"]
    (node.shard / "completed" / "image-0").mkdir(parents=True)
    (node.shard / "completed" / "image-0" / "completed.jsonl").write_text("{}")
    newer = node.ask()["body"]
    assert [answer["answers"] for answer in (old, new, newer, node.ask()["body"])] == [1, 1, 1, 2]
    assert {answer["worker"] for answer in (old, new, newer)} == {*node.workers()}


def test_an_idle_worker_ends(node: Node) -> None:
    node.env["FEDMOSAIC_WORKER_MINUTES"] = "0.01"
    old = node.ask()["body"]
    node.wait_until(lambda: not node.workers())
    assert node.ask()["body"]["worker"] != old["worker"]


def test_a_worker_ends_with_the_node(node: Node) -> None:
    superexec = node.start(before=["sh", "-c", '"$@"; sleep 100', "sh"])
    node.wait_until(lambda: len(node.workers()) == 1)
    superexec.kill()
    superexec.wait()
    node.wait_until(lambda: not node.workers())


@pytest.mark.parametrize("system_helps", [True, False])
def test_the_end_of_another_process_is_noticed(system_helps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not system_helps:
        monkeypatch.delattr(os, "pidfd_open")
        monkeypatch.setattr(lifetime, "OWNER_SECONDS", 0.05)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        waiting = threading.Thread(target=lifetime._wait_for_end, args=(other.pid,))
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
    waiting.join(100)
    assert not waiting.is_alive()


def test_a_message_that_nobody_waits_for_is_given_up(node: Node) -> None:
    asking = node.start("train long")
    node.wait_until(lambda: "training long" in node.log)
    (old,) = node.workers()
    asking.kill()
    asking.wait()
    node.wait_until(lambda: not node.workers())
    assert node.ask()["body"]["worker"] != old


@pytest.mark.parametrize(
    ("do", "expected"),
    [
        ("raise", "WorkerError: ZeroDivisionError: a mistake of the code"),
        ("die", "WorkerError: the site's worker process ended while it answered"),
    ],
)
def test_a_failure_is_the_messages_own_and_the_next_one_gets_a_new_worker(do: str, expected: str, node: Node) -> None:
    old = node.ask()["body"]
    failed = node.start(do)
    assert failed.wait(timeout=300) == 1
    assert expected in node.log
    assert ("site.py" in node.log) == (do == "raise")  # the worker's traceback stands in the node's log
    new = node.ask()["body"]
    assert new["worker"] != old["worker"] and new["answers"] == 1


def open_to_others(node: Node) -> None:
    (node.folder / "fedmosaic").mkdir(mode=0o700)
    (node.folder / "fedmosaic").chmod(0o750)


def link(node: Node) -> None:
    (node.folder / "elsewhere").mkdir(mode=0o700)
    (node.folder / "fedmosaic").symlink_to("elsewhere")


def too_long(node: Node) -> None:
    long = node.folder / ("x" * 100)
    long.mkdir()
    node.env["XDG_RUNTIME_DIR"] = str(long)


def broken(node: Node) -> None:
    (node.code / "client" / "resident" / "worker.py").write_text("raise ImportError('no worker today')")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        pytest.param(open_to_others, "closed to others", id="open"),
        pytest.param(link, "closed to others", id="link", marks=pytest.mark.slow),
        pytest.param(too_long, "it cannot be started: AF_UNIX path too long", id="long", marks=pytest.mark.slow),
        pytest.param(broken, "it ended before it accepted a message", id="broken"),
        pytest.param(
            lambda node: node.env.update(XDG_RUNTIME_DIR="/absent"),
            "no private folder",
            id="absent",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda node: node.env.update(FEDMOSAIC_WORKER_MINUTES="soon"),
            "'soon' is not a number of minutes",
            id="minutes",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_without_a_worker_the_clientapp_answers_and_says_so(
    spoil: Callable[[Node], None], expected: str, node: Node
) -> None:
    spoil(node)
    answer = node.ask()
    assert answer["body"]["worker"] == answer["client"]
    (line,) = [line for line in node.log.splitlines() if "without a resident worker" in line]
    assert expected in line
    assert not node.workers()


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert private_folder() == tmp_path / "fedmosaic"
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid + 1)
    with pytest.raises(NoWorkerError, match="belongs to this user"):
        private_folder()
    monkeypatch.setattr(resident, "fcntl", None)
    with pytest.raises(NoWorkerError, match="no local sockets"):
        private_folder()


def test_without_a_runtime_folder_the_users_own_temporary_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert private_folder() == tmp_path / f"fedmosaic-{os.getuid()}"


names = st.text(min_size=1, max_size=8)
contents = st.builds(
    lambda texts, arrays: RecordDict(
        {f"c-{name}": ConfigRecord(values) for name, values in texts.items()}
        | {f"a-{name}": ArrayRecord({key: _bytes(data) for key, data in some.items()}) for name, some in arrays.items()}
    ),
    st.dictionaries(names, st.dictionaries(names, st.text()), max_size=3),
    st.dictionaries(names, st.dictionaries(names, st.binary(max_size=2000), max_size=3), max_size=2),
)


def _bytes(data: bytes) -> Array:
    return Array(np.frombuffer(data, dtype=np.uint8))


@given(contents)
def test_a_content_arrives_as_it_was(content: RecordDict) -> None:
    here, there = socket.socketpair()
    with here, there:
        frames.send_content(here, {"kind": "train"}, content)
        arrived = frames.receive(there)
    assert arrived.header["kind"] == "train"
    assert frames.content_of(arrived) == content
    assert hashlib.sha256(frames.content_of(arrived).deflate()).digest() == hashlib.sha256(content.deflate()).digest()


def test_half_a_frame_is_nobodys() -> None:
    here, there = socket.socketpair()
    with there:
        with here:
            here.sendall(frames.LENGTH.pack(100) + b"{")
        with pytest.raises(EOFError, match="connection is closed"):
            frames.receive(there)
