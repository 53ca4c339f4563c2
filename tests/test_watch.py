"""`fedmosaic watch`: who may read the page, what it costs when nothing has changed, and what a browser makes of it."""

import asyncio
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import browser as chromium
import httpx
import pytest
from conftest import experiment
from run_folders import figures, write_run

from deploy.cli import main
from deploy.commands.watch import application, server_of
from server.record.run_folder import RunFolder, is_written

needs_chromium = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine")
CLASSES = 3


class Client:
    """Asks the application of a run folder, without a network."""

    def __init__(self, folder: Path) -> None:
        self._transport = httpx.ASGITransport(application(folder))

    def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        async def answer() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://127.0.0.1:8060") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(answer())

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        return self.request("GET", path, headers)


def line(number: int, sites: tuple[str, ...] = ("clinic-a", "clinic-b"), **told: Any) -> dict[str, Any]:
    """A round's line, with figures that grow by it."""
    measured = {name: figures(min(0.1 * number + 0.2, 0.9), CLASSES) for name in ("audio", "image", "audio+image")}
    client = {"modalities": ["audio", "image"], "num_examples": 320, "validation": measured, "bytes_up": 1000,
              "bytes_down": 2000, "seconds": {"load": 1.0, "evaluate": 0.2, "train": 3.0}}  # fmt: skip
    trained = {"losses": {"fused": 1 / (number + 1)}, "clients": dict.fromkeys(sites, client), "bytes_up": 2000,
               "bytes_down": 4000}  # fmt: skip
    return {"round": number, "test": measured, "failed": {}, "seconds": {"exchange": 5.0, "total": 6.0},
            **(trained if number else {"classes": ["yes", "no", "stop"]}), **told}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that goes on; its federation waits for sites."""
    folder = tmp_path / "run"
    folder.mkdir()
    return RunFolder(folder, experiment(federation__rounds=8))


def test_the_page_goes_to_this_machine_only_and_is_only_read(run: RunFolder) -> None:
    client = Client(run.folder)
    for host in ("127.0.0.1:8060", "127.0.0.1", "localhost:8060"):
        assert client.get("/", headers={"Host": host}).status_code == 200
    for host in ("evil.example:8060", "evil.example", "127.0.0.1.evil.example", "www.localhost", ""):
        refused = client.get("/", headers={"Host": host})
        assert refused.status_code == 400
        assert "fedmosaic" not in refused.text
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert client.request(method, "/").status_code == 405
    for path in ("/metrics.jsonl", "/../metrics.jsonl", "/experiment.yaml", "/docs"):
        assert client.get(path).status_code == 404


def test_the_page_may_run_its_own_script_only(run: RunFolder) -> None:
    client = Client(run.folder)
    page, script = client.get("/"), client.get("/watch.js")
    assert page.text.count("<script") == 1
    assert '<script src="/watch.js" defer></script>' in page.text
    assert script.headers["content-type"].startswith("text/javascript")
    for answer in (page, script):
        policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for every time that a page is drawn."""
    import server.report.page

    drawn: list[int] = []
    page = server.report.page.page
    monkeypatch.setattr(server.report.page, "page", lambda *given: drawn.append(1) or page(*given))
    return drawn


def test_an_unchanged_run_costs_nothing_and_a_new_round_is_a_new_page(run: RunFolder, rendered: list[int]) -> None:
    client = Client(run.folder)
    tag = client.get("/").headers["etag"]
    for _ in range(3):
        same = client.get("/", headers={"If-None-Match": tag})
        assert (same.status_code, same.content) == (304, b"")
    assert client.get("/").status_code == 200
    assert len(rendered) == 1
    run.round(line(0))
    run.round(line(1))
    changed = client.get("/", headers={"If-None-Match": tag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != tag
    assert "live, round 1 of 8, updated" in changed.text
    assert len(rendered) == 2


def test_before_the_first_round_the_page_says_what_is_waited_for(run: RunFolder) -> None:
    text = Client(run.folder).get("/").text
    for shown in ("live, round 0 of 8", "Waiting for the sites", "running", "digits-mini", "audio, image"):
        assert shown in text
    site = {"modalities": ["audio"], "num_examples": 77, "unreadable": 2}
    run.round(line(0) | {"sites": {"clinic-z": site}, "refused": {"clinic-y": "another key"}})
    text = Client(run.folder).get("/").text
    for shown in ("clinic-z", "77", "clinic-y", "another key", "yes"):
        assert shown in text


def test_what_a_run_waits_for_is_said_without_drawing_the_page_anew(run: RunFolder, rendered: list[int]) -> None:
    client = Client(run.folder)
    tag = client.get("/").headers["etag"]
    until = time.mktime((2026, 5, 4, 14, 3, 2, 0, 0, -1))
    run.status("round 3 of 8: 1 of 2 sites have replied; waiting for <south>", until)
    changed = client.get("/", headers={"If-None-Match": tag})
    assert "1 of 2 sites have replied; waiting for &lt;south&gt; – until 14:03:02</p>" in changed.text
    assert len(rendered) == 1


def test_a_half_written_round_waits_for_its_other_half(run: RunFolder) -> None:
    client, metrics = Client(run.folder), run.folder / "metrics.jsonl"
    run.round(line(0))
    whole = json.dumps(line(1)) + "\n"
    for part, done in ((whole[:200], 0), (whole[200:-1], 0), (whole[-1:], 1)):
        with metrics.open("a") as file:
            file.write(part)
        assert f"live, round {done} of 8" in client.get("/").text


def test_a_resumed_run_that_drops_rounds_is_read_anew(run: RunFolder) -> None:
    client, metrics = Client(run.folder), run.folder / "metrics.jsonl"
    for number in range(4):
        run.round(line(number))
    assert "live, round 3 of 8" in client.get("/").text
    fewer = metrics.read_text().splitlines(keepends=True)[:2]
    (run.folder / "new").write_text("".join([*fewer, json.dumps(line(2, sites=("clinic-new",))) + "\n"]))
    os.replace(run.folder / "new", metrics)
    text = client.get("/").text
    assert "live, round 2 of 8" in text
    assert "clinic-new" in text


def test_a_killed_run_is_told_from_one_that_goes_on_and_from_one_that_ended(run: RunFolder) -> None:
    folder = run.folder
    run.round(line(0))
    client = Client(folder)
    assert "live, round 0" in client.get("/").text
    assert is_written(folder)
    run._release()  # as the end of the process does
    assert not is_written(folder)
    assert "stopped: no process writes" in client.get("/").text
    (folder / "summary.json").write_text(json.dumps({"status": "completed", "name": "the-run"}))
    text = client.get("/").text
    assert "ended at" in text
    assert "completed" in text


def test_names_from_sites_are_text(run: RunFolder) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    run.round(line(0) | {"refused": {evil: evil}, "classes": [evil, "b", "c"]})
    run.round(line(1, sites=(evil,), failed={evil: evil}))
    text = Client(run.folder).get("/").text
    assert "<script>" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_folder_that_is_gone_is_said_to_be_and_comes_back(run: RunFolder) -> None:
    client = Client(run.folder)
    assert client.get("/").status_code == 200
    run.folder.rename(run.folder.with_name("elsewhere"))
    gone = client.get("/")
    assert gone.status_code == 503
    assert "the run folder cannot be read: No such file or directory" in gone.text
    run.folder.with_name("elsewhere").rename(run.folder)
    assert client.get("/").status_code == 200


def test_the_server_answers_while_a_page_is_rendered(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import server.report.page

    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: Any) -> str:
        begun.set()
        assert go_on.wait(200)
        return "rendered"

    monkeypatch.setattr(server.report.page, "page", slow)

    async def both() -> tuple[str, int]:
        transport = httpx.ASGITransport(application(run.folder))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            page = asyncio.create_task(client.get("/"))
            await asyncio.to_thread(begun.wait, 200)
            meanwhile = await client.get("/watch.js")
            go_on.set()
            return (await page).text, meanwhile.status_code

    assert asyncio.run(both()) == ("rendered", 200)


def test_mistakes_are_answered_with_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "experiment.yaml").write_text("name: x\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        for wrong, said in (
            ([str(tmp_path / "nowhere")], "nowhere is not a run folder"),
            ([str(tmp_path), "--port", "70000"], "70000 is not from 0 to 65535"),
            ([str(tmp_path), "--port", taken], f"{taken} of 127.0.0.1 cannot be used: "),
        ):
            with pytest.raises(SystemExit) as end:
                main(["watch", *wrong])
            assert end.value.code == 2
            assert said in capsys.readouterr().err


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served by uvicorn, in a thread."""
    server = server_of(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def window() -> Iterator[chromium.Tab]:
    with chromium.browser() as tab:
        yield tab


@pytest.fixture
def tab(window: chromium.Tab) -> chromium.Tab:
    """An empty tab that has nothing to complain of yet."""
    window.open("about:blank", 1280)
    window.complaints.clear()
    return window


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_follows_a_run_to_its_end(width: int, run: RunFolder, tab: chromium.Tab) -> None:
    with served(run.folder) as address:
        tab.open(address, width)
        tab.wait_for("document.querySelector('#live.live')?.innerText.startsWith('live, round 0 of 8')")
        for number in range(3):
            run.round(line(number))
        tab.wait_for("document.querySelector('#live').innerText.startsWith('live, round 2 of 8')")
        assert tab.value("document.querySelectorAll('figure svg').length") == 6
        assert tab.value("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"
        tab.value("document.querySelector('details').open = true; scrollTo(0, 700)")
        before = tab.value("scrollY")
        run.round(line(3, sites=("clinic-a", "clinic-new"), failed={"clinic-b": "no reply within 30 s"}))
        tab.wait_for("document.querySelector('#sites').innerText.includes('clinic-new')")
        assert "no reply within 30 s" in tab.value("document.querySelector('#troubles').innerText")
        assert tab.value("[scrollY, document.querySelector('details').open]") == [before, True]
        assert before > 0
        assert tab.value("document.documentElement.scrollWidth") <= width
        run.summary({"status": "completed", "name": "run", "scores": {"audio": 0.75}})
        tab.wait_for("document.querySelector('#live.ended')?.innerText.startsWith('ended at')")
        assert "completed" in tab.value("document.querySelector('h1').innerText")
    assert tab.complaints == []


@needs_chromium
def test_a_browser_keeps_what_it_has_when_folder_or_server_are_gone(run: RunFolder, tab: chromium.Tab) -> None:
    run.round(line(0))
    run.round(line(1))
    with served(run.folder) as address:
        tab.open(address, 1280)
        tab.wait_for("document.querySelectorAll('figure svg').length === 6")
        run.folder.rename(run.folder.with_name("elsewhere"))
        tab.wait_for("document.querySelector('#live').innerText.includes('cannot be read')")
        run.folder.with_name("elsewhere").rename(run.folder)
        tab.wait_for("document.querySelector('#live').innerText.startsWith('live, round 1 of 8')")
    tab.wait_for("document.querySelector('#live').innerText.includes('does not answer')")
    assert tab.value("document.querySelectorAll('figure svg').length") == 6


@needs_chromium
def test_a_report_of_many_sites_and_long_names_fits_a_phone(tmp_path: Path, tab: chromium.Tab) -> None:
    from server.report.page import write_report

    names = tuple(f"clinic-{i}-" + "x" * 60 for i in range(30))
    write_run(tmp_path, rounds=12, sites=names, classes=tuple(f"a long name of class {i}" for i in range(30)))
    tab.open(write_report(tmp_path).as_uri(), 390)
    assert tab.value("document.querySelectorAll('figure svg').length") == 6
    assert tab.value("document.documentElement.scrollWidth") <= 390
    assert tab.complaints == []
