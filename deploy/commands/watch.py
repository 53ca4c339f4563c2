"""`fedmosaic watch`: the page of a run, over HTTP on this machine, while the run goes on and afterwards.

It is the report's page with a line of its own and a script that swaps in what has changed. It only reads, and only
programs of this machine reach it; the Host header is checked because a page from elsewhere could otherwise have the
browser read it under a name that resolves to this machine (DNS rebinding).
"""

import argparse
import socket
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from html import escape
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError
from common.words.printable import printable

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from uvicorn import Server

    from server.report.run import Run

HOST = "127.0.0.1"
FILES = ("experiment.yaml", "metrics.jsonl", "summary.json")
NOTE = '<p id="live"></p>'
"""Stands in a rendered page for its first line, which changes more often than the plots."""
SCRIPT = Path(__file__).with_name("watch.js")
HEAD = '<link rel="icon" href="data:,"><script src="/watch.js" defer></script>'


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic watch`."""
    parser = commands.add_parser(
        "watch",
        help="follow a run in the browser",
        description="Serve the page of a run to this machine's browsers; it follows the run while it goes on. "
        "Ctrl-C ends it, and the run does not notice.",
        epilog="example: fedmosaic watch runs/digits-mini-fedcmi",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1 (default: any that is free)")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    if not (options.run / "experiment.yaml").is_file():
        raise ConfigError("watch", [f"{options.run} is not the folder of a run: it has no experiment.yaml"])
    if not 0 <= options.port < 2**16:
        raise ConfigError("--port", [f"{options.port} is not from 0 to 65535"])
    try:
        listener = socket.create_server((HOST, options.port))
    except OSError as error:
        raise ConfigError("--port", [f"{options.port} of {HOST} cannot be used: {error}"]) from None
    with listener:
        print(f"http://{HOST}:{listener.getsockname()[1]}/", flush=True)
        server_of(options.run).run([listener])


def server_of(folder: Path) -> "Server":
    """A server of the pages, for a socket that listens."""
    from uvicorn import Config, Server

    return Server(Config(application(folder), ws="none", log_level="warning"))


def application(folder: Path) -> "Starlette":
    """The pages as an ASGI application: / and /watch.js, GET only."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import HTMLResponse, Response
    from starlette.routing import Route

    page = LivePage(folder)

    # No coroutine: Starlette then runs it in a thread, and goes on answering while a page is rendered.
    def content(request: "Request") -> "Response":
        try:
            tag, html = page.latest()
        except OSError as error:
            return HTMLResponse(_unreadable(error), 503, headers())
        tagged = headers() | {"ETag": tag}
        same = request.headers.get("if-none-match") == tag
        return Response(status_code=304, headers=tagged) if same else HTMLResponse(html, headers=tagged)

    def script(_: "Request") -> "Response":
        return Response(SCRIPT.read_text(encoding="utf-8"), media_type="text/javascript", headers=headers())

    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    return Starlette(routes=[Route("/", content), Route("/watch.js", script)], middleware=[hosts])


@dataclass(frozen=True)
class State:
    """What the page would be made of: (time, size) of the run folder's files, whether a process writes to it, and what
    it says that it waits for, with the time up to which (seconds since 1970)."""

    stats: tuple[tuple[int, int] | None, ...]
    live: bool
    goings_on: tuple[str, float | None]

    @classmethod
    def of(cls, folder: Path) -> "State":
        """The state of a folder.

        Raises OSError when it cannot be read.
        """
        from server.record.run_folder import is_written, read_status

        there = {path.name: path.stat() for path in folder.iterdir() if path.name in FILES}
        stats = (there.get(name) for name in FILES)
        sizes = tuple((stat.st_mtime_ns, stat.st_size) if stat else None for stat in stats)
        return cls(sizes, is_written(folder), read_status(folder))

    @property
    def tag(self) -> str:
        """An ETag."""
        return f'"{sha256(repr(self).encode()).hexdigest()[:32]}"'

    @property
    def changed(self) -> str:
        """When a file last changed, in this machine's time."""
        last = max((stat[0] for stat in self.stats if stat), default=0)
        return clock(last / 1e9)

    @property
    def waiting(self) -> str:
        """What goes on, and up to when it may; "" while nothing is known."""
        text, until = self.goings_on
        return " – ".join([*text.splitlines()[:1], *([f"until {clock(until)}"] if until else [])])


def clock(seconds: float) -> str:
    """A time (seconds since 1970) of this machine's day."""
    return f"{datetime.fromtimestamp(seconds):%H:%M:%S}"


class LivePage:
    """The page of a run folder: rendered anew when a file of it has changed, but for its first line."""

    def __init__(self, folder: Path) -> None:
        from server.record.run_folder import METRICS
        from server.report.run import Lines

        self._folder = folder
        self._lines = Lines(folder / METRICS)
        self._lock = Lock()
        self._rendered: tuple[tuple[Any, ...], str, Run] | None = None

    def latest(self) -> tuple[str, str]:
        """The page's ETag and its HTML.

        Raises OSError when the folder cannot be read.
        """
        with self._lock:
            state = State.of(self._folder)
            of = state.stats, state.live
            if self._rendered is None or self._rendered[0] != of:
                self._rendered = of, *self._render()
            _, html, run = self._rendered
            return state.tag, html.replace(NOTE, first_line(run, state), 1)

    def _render(self) -> tuple[str, "Run"]:
        from server.report.page import page
        from server.report.run import read_run

        run = read_run(self._folder, self._lines)
        return page(run, self._folder.name, HEAD, NOTE), run


def first_line(run: "Run", state: State) -> str:
    """Whether the run goes on, how far it is and what it waits for, as HTML."""
    if run.summary:
        return _note("ended", f"ended at {state.changed}")
    if not state.live:
        return _note("stopped", "stopped: no process writes to the run's folder; `fedmosaic run --resume` goes on")
    done = f"live, round {len(run.trained)} of {run.about['planned']}, updated {state.changed}"
    return _note("live", " · ".join(filter(None, [done, printable(state.waiting)])))


def headers() -> dict[str, str]:
    """What browsers may do with an answer: run the one script, apply the page's style sheet, fetch from here."""
    from server.report.page import STYLE

    style = b64encode(sha256(STYLE.encode()).digest()).decode()
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "connect-src": "'self'",
        "img-src": "data:",
        "style-src-elem": f"'sha256-{style}'",
        "style-src-attr": "'unsafe-inline'",  # colours of drawings; under this policy they can load nothing
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{what} {where}" for what, where in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _unreadable(error: OSError) -> str:
    """A page that is only a line, so that whatever is shown already stays."""
    note = _note("unreadable", f"the run's folder cannot be read: {error.strerror}")
    return f'<!DOCTYPE html><html lang="en"><head><title>fedmosaic</title>{HEAD}</head><main>{note}</main></html>'


def _note(kind: str, line: str) -> str:
    return f'<p id="live" class="live {kind}" role="status">{escape(line)}</p>'
