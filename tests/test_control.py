"""The control port of a SuperLink: who has no token of the operator's starts nothing."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from common.errors import RunError
from deploy.certs import make
from deploy.control import HEADER, REFUSED, TOKEN_FILE, VARIABLE, Guard, make_token, read_token
from deploy.engines import FlowerCommand, Link, executable
from deploy.processes import Processes, free_ports, wait_for_port


def test_only_the_control_api_asks_for_the_token() -> None:
    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    routes = [Route("/v1/control/start-run", answer), Route("/v1/runtime/pull-messages", answer)]
    transport = httpx.ASGITransport(app=Guard(Starlette(routes=routes), "right"))  # type: ignore[arg-type]

    def get(path: str, headers: dict[str, str]) -> int:
        async def ask() -> int:
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return (await client.get(path, headers=headers)).status_code

        return asyncio.run(ask())

    assert get("/v1/runtime/pull-messages", {}) == 200
    assert get("/v1/control/start-run", {HEADER: "right"}) == 200
    for wrong in ({}, {HEADER: ""}, {HEADER: "wrong"}, {HEADER: "rightright"}, {"authorization": "right"}):
        assert get("/v1/control/start-run", wrong) == 401


def test_a_token_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / TOKEN_FILE
    make_token(path)
    token = read_token({VARIABLE: str(path)})
    make_token(path)
    assert len(token) == 64 and read_token({VARIABLE: str(path)}) == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_token({}) == ""
    with pytest.raises(RunError, match="cannot be read"):
        read_token({VARIABLE: str(tmp_path / "none")})


@pytest.fixture
def superlink(tmp_path: Path) -> Iterator[int]:
    make(tmp_path / "certs", ["127.0.0.1"], [])
    port, fleet = free_ports(2)
    told = ["superlink", "--certs", "certs", "--state", "state", "--port", str(port)]
    processes = Processes(tmp_path / "logs", {})
    try:
        where = ["--fleet-address", f"127.0.0.1:{fleet}"]
        processes.start("superlink", [executable("fedmosaic"), *told, *where], tmp_path, remedy=None)
        wait_for_port(port, processes, 200)
        yield port
    finally:
        processes.stop()


@pytest.mark.network
@pytest.mark.slow
def test_a_user_without_the_token_neither_starts_nor_sees_runs(superlink: int, tmp_path: Path) -> None:
    ca, token = str(tmp_path / "certs" / "ca.crt"), str(tmp_path / "state" / TOKEN_FILE)

    def asked(name: str, token: str) -> tuple[str, str]:
        link = Link(f"127.0.0.1:{superlink}", ca, token)
        return FlowerCommand(tmp_path / name, link, dict(os.environ)).status("1")

    other = tmp_path / "other"
    other.write_text("0" * 64)
    deadline = time.monotonic() + 100
    while "does not answer" in (said := asked("operator", token))[1] and time.monotonic() < deadline:
        time.sleep(0.5)
    answer = FlowerCommand(tmp_path / "op", Link(f"127.0.0.1:{superlink}", ca, token), dict(os.environ))._call(
        "supernode", "list", "fedmosaic", "--format", "json")  # fmt: skip
    assert answer.get("success") is True, (answer, said)
    for wrong in ("", str(other)):
        refused = FlowerCommand(
            tmp_path / f"w{len(wrong)}", Link(f"127.0.0.1:{superlink}", ca, wrong), dict(os.environ)
        )
        assert refused._call("supernode", "list", "fedmosaic", "--format", "json") == {"error-message": REFUSED}
    for path in ("start-run", "list-runs", "register-node"):
        with httpx.Client(verify=False) as client:
            assert client.post(f"https://127.0.0.1:{superlink}/v1/control/{path}", content=b"").status_code == 401
