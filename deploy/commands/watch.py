"""`fedmosaic watch`: serve the page of a run over HTTP on this machine, during the run and afterwards.

The page is the report with a status line and a script that replaces the parts that have changed. The server only reads
files, and only programs on this machine can reach it. It checks the Host header because otherwise a foreign page could
make the browser read the run under a name that resolves to this machine (DNS rebinding).
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
"""Placeholder of the status line in a rendered page. The status line changes more often than the plots."""
SCRIPT = Path(__file__).with_name("watch.js")
HEAD = '<link rel="icon" href="data:,"><script src="/watch.js" defer></script>'


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic watch`."""
    parser = commands.add_parser(
        "watch",
        help="follow a run in the browser",
        description="Serve the page of a run to the browsers of this machine. The page updates itself during the run. "
        "Ctrl-C stops the page, not the run.",
        epilog="example: fedmosaic watch runs/digits-mini-fedcmi",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: any free port)")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    if not (options.run / "experiment.yaml").is_file():
        raise ConfigError("watch", [f"{options.run} is not a run folder: it has no experiment.yaml"])
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
    """The HTTP server of the pages. Its caller supplies the listening socket."""
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

    # A function, not a coroutine: Starlette runs it in a thread and still answers other requests meanwhile.
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
    """The state of a run folder, which decides whether the page has changed.

    stats: (time, size) of each of FILES. live: whether a process writes to the folder. goings_on: the reason why the
    run waits, and the deadline in seconds since 1970.
    """

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
        """The ETag of the page."""
        return f'"{sha256(repr(self).encode()).hexdigest()[:32]}"'

    @property
    def changed(self) -> str:
        """The time of the last change of a file, in this machine's time zone."""
        last = max((stat[0] for stat in self.stats if stat), default=0)
        return clock(last / 1e9)

    @property
    def waiting(self) -> str:
        """The reason why the run waits, with the deadline; "" while nothing is known."""
        text, until = self.goings_on
        return " – ".join([*text.splitlines()[:1], *([f"until {clock(until)}"] if until else [])])


def clock(seconds: float) -> str:
    """The local time of day of a time in seconds since 1970."""
    return f"{datetime.fromtimestamp(seconds):%H:%M:%S}"


class LivePage:
    """The page of a run folder. It is rendered again when a file has changed; only the status line is always fresh."""

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
    """The status line as HTML: whether the run continues, its round, and the reason why it waits."""
    if run.summary:
        return _note("ended", f"ended at {state.changed}")
    if not state.live:
        return _note("stopped", "stopped: no process writes to the run folder; continue with `fedmosaic run --resume`")
    done = f"live, round {len(run.trained)} of {run.about['planned']}, updated {state.changed}"
    return _note("live", " · ".join(filter(None, [done, printable(state.waiting)])))


def headers() -> dict[str, str]:
    """The headers of an answer. Browsers may run the one script, apply the page's style sheet and fetch from here."""
    from server.report.page import STYLE

    style = b64encode(sha256(STYLE.encode()).digest()).decode()
    policy = {
        "default-src": "'none'",
        "script-src": "'self'",
        "connect-src": "'self'",
        "img-src": "data:",
        "style-src-elem": f"'sha256-{style}'",
        "style-src-attr": "'unsafe-inline'",  # colours of drawings; this policy prevents drawings from loading files
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
    """A page with the status line only, so that the browser keeps the other parts."""
    note = _note("unreadable", f"the run folder cannot be read: {error.strerror}")
    return f'<!DOCTYPE html><html lang="en"><head><title>fedmosaic</title>{HEAD}</head><main>{note}</main></html>'


def _note(kind: str, line: str) -> str:
    return f'<p id="live" class="live {kind}" role="status">{escape(line)}</p>'
