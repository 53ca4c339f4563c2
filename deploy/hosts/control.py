"""The control port of a SuperLink, which requires the operator's token.

Flower starts, lists and stops runs for everyone who can connect to this port, so for every user of the server's host.
Here, each request needs a token from a file that only its owner can read.
"""

import hmac
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import RunError
from common.files import write_whole

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

VARIABLE = "FEDMOSAIC_OPERATOR_TOKEN"
"""Environment variable with the path of the token's file."""
TOKEN_FILE = "operator.token"
HEADER = "x-fedmosaic-operator"
PATHS = "/v1/control/"
"""The prefix of Flower's control API. The tasks of runs use another prefix and their own tokens."""
TOKEN_BYTES = 32
REFUSED = (
    f"the operator's token is missing or wrong: use --operator-token FILE, or set the environment variable {VARIABLE}; "
    f"the file is {TOKEN_FILE} in the SuperLink's --state folder"
)


def make_token(path: Path) -> None:
    """Write a new token if the file does not exist."""
    if not path.exists():
        write_whole(path, secrets.token_hex(TOKEN_BYTES).encode() + b"\n")


def read_token(environ: Mapping[str, str]) -> str:
    """The token from the file in the environment variable, or "" if the variable is not set.

    Raises RunError when the file cannot be read.
    """
    if not (name := environ.get(VARIABLE, "")):
        return ""
    try:
        return Path(name).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise RunError(f"{VARIABLE}: {name} cannot be read: {error}") from None


class Guard:
    """An ASGI application in front of Flower's application. It checks the token."""

    def __init__(self, app: "ASGIApp", token: str) -> None:
        self.app, self._token = app, token.encode()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, or answer it with 401."""
        if scope["type"] == "http" and scope["path"].startswith(PATHS):
            given = dict(scope["headers"]).get(HEADER.encode(), b"")
            if not hmac.compare_digest(given, self._token):
                from starlette.responses import PlainTextResponse

                refused = PlainTextResponse(REFUSED, 401)
                return await refused(scope, receive, send)
        return await self.app(scope, receive, send)


def superlink() -> None:
    """`flower-superlink`, with the same options as Flower's command, which requires the token."""
    flower, token = import_module("flwr.superlink.main"), read_token(os.environ)
    if not token:
        raise RunError(f"{VARIABLE}: set it to the path of a file with a token")
    flower.__dict__["create_app"] = partial(_guarded, flower.create_app, token)
    import_module("flwr.superlink.cli.flower_superlink").flower_superlink()


def _guarded(create: Callable[..., Any], token: str, *arguments: Any) -> Any:
    app = create(*arguments)
    app.add_middleware(Guard, token=token)
    return app


def client() -> None:
    """`flwr`, with the same options as Flower's command, which sends the token."""
    import httpx

    if token := read_token(os.environ):
        made = httpx.Client.__init__

        def made_with_token(self: httpx.Client, *arguments: Any, **options: Any) -> None:
            made(self, *arguments, **options)
            self.headers[HEADER] = token

        httpx.Client.__init__ = made_with_token  # type: ignore[method-assign]
    import_module("flwr.cli.app").app()


if __name__ == "__main__":
    {"superlink": superlink, "client": client}[sys.argv.pop(1)]()
