"""The command line: what a user types and what a user's mistake looks like."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import RAW, ROOT

from common.errors import RunError
from deploy.cli import COMMANDS, main, parser
from deploy.engines.display import show
from deploy.engines.processes import Processes, free_ports, wait_for_port


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_help_loads_nothing_large() -> None:
    code = "import sys; from deploy.cli import parser; parser(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "deploy.commands.run" in loaded
    assert not {"torch", "flwr", "numpy", "matplotlib", "pydantic"} & set(loaded)


def test_every_command_has_an_example_that_is_one() -> None:
    (commands,) = [action.choices for action in parser()._actions if isinstance(action.choices, dict)]
    assert len(commands) == len(COMMANDS)
    for name, command in commands.items():
        example = command.epilog.removeprefix("example: ").split("     ")[0].split(" > ")[0]
        assert example.startswith(f"fedmosaic {name} "), name
        assert parser().parse_args(shlex.split(example)[1:]).command


def test_a_shell_can_complete_commands_options_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("completion", "bash") == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "mine.yaml").touch()
    for words, expected in (
        (["fedmosaic", "wat"], "watch"),
        (["fedmosaic", "run", "--eng"], "--engine"),
        (["fedmosaic", "run", "min"], "mine.yaml"),
    ):
        ask = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_fedmosaic; echo ${{COMPREPLY[@]}}"
        said = subprocess.run(["bash", "-c", f"source {script}; {ask}"], capture_output=True, text=True, cwd=tmp_path)
        assert expected in said.stdout.split(), said


@pytest.fixture
def chosen(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(RAW))
    return path


def test_shard_writes_a_folder_a_client(chosen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("shard", chosen, "--out", tmp_path / "out", "--set", "data.clients=3") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        "client-0",
        "client-1",
        "client-2",
        "test",
    ]
    assert "3 client shards" in capsys.readouterr().out
    assert call("shard", chosen, "--out", tmp_path / "out") == 2
    assert "exists and is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "train.lr"], "'train.lr' is not KEY=VALUE"),
        (["--set", "train.lr=fast"], "train.lr: "),
        (["--set", "method=fedcmy"], "did you mean 'fedcmi'?"),
        (
            ["--set", "data.set={name: av-digits, mnist: /nowhere, fsdd: /nowhere}"],
            "av-digits: no train-images* in",
        ),
        (["--engine", "superlink"], "--engine superlink needs --address"),
        (["--engine", "superlink", "--address", "127.0.0.1:1"], "--root-certificates FILE, or --insecure"),
        (["--engine", "processes", "--insecure"], "need --engine superlink"),
    ],
)
def test_a_users_mistake_is_one_message_and_status_2(
    arguments: list[str], expected: str, chosen: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert call("run", chosen, *arguments) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "runs").exists()


def test_a_config_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "nowhere.yaml") == 2
    assert "nowhere.yaml: 1 mistake\n  - cannot be read: No such file or directory" in capsys.readouterr().err


def test_shards_of_another_seed_are_refused(
    chosen: Path,
    tmp_path: Path,
    tiny_shards: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("run", chosen, "--shards", tiny_shards, "--set", "seed=12") == 2
    assert "seed: 3, now 12" in capsys.readouterr().err


def test_a_superlink_that_does_not_answer_is_a_failed_run(
    chosen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    port = free_ports(1)[0]
    assert call("run", chosen, "--engine", "superlink", "--address", f"127.0.0.1:{port}", "--insecure") == 1
    assert "the run could not be submitted" in capsys.readouterr().err


def test_ports_are_free_and_different() -> None:
    assert len(set(free_ports(20))) == 20


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path / "logs", {})
    yield made
    made.stop()


def test_a_process_that_ends_early_is_reported_with_its_last_words(processes: Processes, tmp_path: Path) -> None:
    processes.start("talker", ["sh", "-c", "echo the port is taken; exit 3"], tmp_path)
    with pytest.raises(RunError, match=r"talker ended with status 3:\nthe port is taken"):
        wait_for_port(free_ports(1)[0], processes, 200)


def test_stop_ends_grandchildren_in_sessions_of_their_own(processes: Processes, tmp_path: Path) -> None:
    script = (
        "import subprocess, time\n"
        "print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid, flush=True)\n"
        "time.sleep(300)"
    )
    processes.start("parent", [sys.executable, "-c", script], tmp_path)
    while not (text := processes.log("parent").read_text()).endswith("\n"):
        time.sleep(0.05)
    processes.stop()
    state = Path(f"/proc/{int(text)}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_the_table_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({
        "name": "x", "method": "fedavg", "dataset": "d", "task": "single-label", "measured_on": "test",
        "figures": {"audio": {"accuracy": 0.5, "examples": 8}}, "intervals": {"audio": {"accuracy": [0.25, 0.75]}},
        "bytes_up": 10, "bytes_down": 2_000_000, "rounds": 1, "seconds": 3.0,
        "refused": {"s": "[why]"}, "missing": {"v": "gone"}, "classes": ["a"],
        "sites": {"t": {"findings": {"audio": {"values": 4, "unreadable": 3, "reasons": {"why": 3}}}}, "u": {}},
    }))  # fmt: skip
    show(tmp_path)
    text = capsys.readouterr().out
    for expected in (
        "50.0%",
        "25.0% to 75.0%",
        "10 B up, 2.0 MB down",
        "missing from the start",
        "1 round in",
        "t: 3 of 4 audio values (75%) cannot be read: 3 x why",
        "report.html",
    ):
        assert expected in text
    rows = [line.split("│")[1:4] for line in text.splitlines() if line.startswith("│")]
    stands = [tuple(cell.strip() for cell in row) for row in rows if len(row) == 3]
    assert ("s", "refused", "[why]") in stands and ("v", "missing from the start", "gone") in stands


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_signs_that_a_terminal_lacks_are_replaced(encoding: str, tmp_path: Path) -> None:
    shard = tmp_path / "shard"
    shard.mkdir()
    (shard / "shard.json").write_text(json.dumps({"site": "s", "classes": ["椅子"], "modalities": ["text"]}))
    (shard / "metadata.jsonl").write_text(json.dumps({"id": "1", "label": "椅子", "text": "a chair"}) + "\n")
    command = [sys.executable, "-m", "deploy.cli", "inspect", str(shard)]
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=env, capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert ("椅子" in done.stdout.decode(encoding)) == (encoding == "utf-8")


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m deploy.cli completion bash | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] in ("0", "141")


WRONG = [
    "run nope.yaml",
    "shard nope.yaml --out x",
    "inspect nope",
    "inspect nope --with nope.yaml",
    "predict nope --input x.png",
    "watch nope",
    "compare nope",
    "complete nope --with nope.yaml",
    "quality nope --with nope.yaml",
    "probe nope --with nope.yaml --out x",
    "bench nope.yaml",
    "tensorboard nope --out x",
    "init x --shards nope",
    "import image=nope --out x",
    "run --no-such-option",
]


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_path_or_option_is_answered_before_anything_large_is_loaded(words: str, tmp_path: Path) -> None:
    """By what is loaded, not by the time that it takes."""
    code = f"""
import sys
from deploy.cli import main
try:
    main({shlex.split(words)!r})
except SystemExit as end:
    print(end.code, *(set(sys.modules) & {{"torch", "flwr", "matplotlib", "transformers", "scipy", "sklearn"}}))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.stdout.splitlines()[-1] == "2", done.stdout + done.stderr
