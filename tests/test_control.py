"""The control port of a SuperLink: who has no token of the operator's starts nothing."""

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto import fleet_pb2
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from common.errors import RunError
from deploy.engines.launch import FlowerCommand, Link, executable
from deploy.engines.processes import Processes, free_ports, wait_for_port
from deploy.hosts.certs import make
from deploy.hosts.control import HEADER, REFUSED, TOKEN_FILE, VARIABLE, Guard, make_token, read_token


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
    make(tmp_path / "certs", ["127.0.0.1"], ["a", "b"])
    port, fleet = free_ports(2)
    (tmp_path / "fleet").write_text(str(fleet))
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


def signed(public: Any, signer: Any, hours: float = 0.0) -> list[tuple[str, str | bytes]]:
    """What a node shows with every call: its public key, the time, and its signature of the time."""
    when = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    key, signature = public_key_to_bytes(public.public_key()), sign_message(signer, when.encode())
    return [("flwr-public-key-bin", key), ("flwr-timestamp", when), ("flwr-signature-bin", signature)]


@pytest.mark.network
@pytest.mark.slow
def test_a_node_is_who_holds_a_registered_key(superlink: int, tmp_path: Path) -> None:
    certs, token = tmp_path / "certs", tmp_path / "state" / TOKEN_FILE
    link = Link(f"127.0.0.1:{superlink}", str(certs / "ca.crt"), str(token))
    assert FlowerCommand(tmp_path / "op", link, dict(os.environ)).register(certs / "a.pub", "a")
    a, b = (load_ssh_private_key((certs / f"{name}.key").read_bytes(), None) for name in "ab")
    known, unknown = (public_key_to_bytes(key.public_key()) for key in (a, b))  # type: ignore[union-attr, arg-type]
    trust = grpc.ssl_channel_credentials((certs / "ca.crt").read_bytes())
    activate = partial(fleet_pb2.ActivateNodeRequest, heartbeat_interval=30)
    other = Node(node_id=12345)
    with grpc.secure_channel(f"127.0.0.1:{(tmp_path / 'fleet').read_text()}", trust) as channel:
        stub = FleetStub(channel)
        attacks = [
            (stub.ActivateNode, activate(public_key=known), [], "Missing authentication"),
            (stub.ActivateNode, activate(public_key=unknown), signed(b, b), "2004"),
            (stub.ActivateNode, activate(public_key=known), signed(a, b), "Invalid signature"),
            (stub.ActivateNode, activate(public_key=unknown), signed(a, a), "2004"),
            (stub.ActivateNode, activate(public_key=known), signed(a, a, -1), "Invalid timestamp"),
            (stub.ActivateNode, activate(public_key=known), signed(a, a, 1), "Invalid timestamp"),
            (stub.RegisterNode, fleet_pb2.RegisterNodeFleetRequest(public_key=unknown), signed(b, b), "2001"),
            (stub.PullMessages, fleet_pb2.PullMessagesRequest(node=other), signed(b, b), "Invalid node ID"),
            (stub.PullMessages, fleet_pb2.PullMessagesRequest(node=other), [], "Missing authentication"),
            (stub.PullMessages, fleet_pb2.PullMessagesRequest(node=other), signed(a, a), "Invalid node ID"),
            (stub.UnregisterNode, fleet_pb2.UnregisterNodeFleetRequest(node_id=1), signed(a, a), "Invalid node ID"),
        ]
        for method, request, shown, expected in attacks:
            with pytest.raises(grpc.RpcError) as caught:
                method(request, metadata=shown, timeout=60)
            assert expected in caught.value.details(), expected
        assert stub.ActivateNode(activate(public_key=known), metadata=signed(a, a), timeout=60).node_id
