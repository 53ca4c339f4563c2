"""`fedmosaic models`: a model comes from a hub, pinned by commit and content, and hostile ones do not stay."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from conftest import ROOT
from running import served
from tiny_models import save_bert

COMMIT = "c" * 40
NAME = "owner/bert"


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """The two questions of a model hub that are needed: which files a commit has, and a file."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    siblings = [{"rfilename": name} for name in files]

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if "/tree/" in path:
                listed = [{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                          for name, data in files.items()]  # fmt: skip
                return self._answer(json.dumps(listed).encode())
            if path.startswith("/api/models/"):
                about = {"id": NAME, "modelId": NAME, "sha": COMMIT, "private": False, "siblings": siblings}
                return self._answer(json.dumps(about).encode())
            name = path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")
            return self._answer(files[name]) if name in files else self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with served(Hub) as address:
        yield address


def models(address: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    env |= {"FEDMOSAIC_MODELS": str(folder / "models"), "no_proxy": "127.0.0.1"}
    env.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "deploy.cli", "models", *arguments]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)


def test_a_model_is_fetched_pinned_and_missed_when_it_changes(tmp_path: Path) -> None:
    source = save_bert(tmp_path / "source")
    (source / "pytorch_model.bin").write_bytes(b"a pickle")
    with hub(source) as address:
        done = models(address, tmp_path, "fetch", NAME)
        assert done.returncode == 0, done.stderr
        again = models(address, tmp_path, "fetch", NAME)
        assert again.returncode == 2 and "exists already" in again.stderr
    folder = tmp_path / "models" / NAME
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in source.iterdir() if path.suffix != ".bin"
    )
    assert json.loads((tmp_path / "models" / "models.lock.json").read_text())[NAME]["revision"] == COMMIT
    assert f"{NAME}: {folder}; revision {COMMIT}\n" in models("", tmp_path, "list").stdout
    (folder / "config.json").write_text("{}")
    assert f"revision {COMMIT}, CHANGED" in models("", tmp_path, "list").stdout


def test_a_model_that_names_code_does_not_stay(tmp_path: Path) -> None:
    source = save_bert(tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Y"}}))
    with hub(source) as address:
        done = models(address, tmp_path, "fetch", NAME)
    assert done.returncode == 2 and "auto_map refers to code" in done.stderr
    assert not (tmp_path / "models" / NAME).exists()
    assert not list((tmp_path / "models").glob(".*.partial"))


def test_what_cannot_be_fetched_is_said_in_words(tmp_path: Path) -> None:
    done = models("http://127.0.0.1:9", tmp_path, "fetch", NAME)
    assert done.returncode == 2 and f"{NAME} cannot be fetched" in done.stderr and "Traceback" not in done.stderr
    assert models("", tmp_path, "fetch", "../x").returncode == 2
