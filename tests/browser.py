"""A headless Chromium for tests of pages, by its DevTools protocol: https://chromedevtools.github.io/devtools-protocol/."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0")
PATIENCE_SECONDS = 120.0


class Tab:
    """A page of the browser. complaints: exceptions, and what was logged as an error, refusals by policy included."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._calls = 0
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a DevTools command."""
        self._calls += 1
        self._connection.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while (message := json.loads(self._connection.recv(PATIENCE_SECONDS))).get("id") != self._calls:
            if "method" in message:
                self._hear(message)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _hear(self, event: dict[str, Any]) -> None:
        said = event["params"]
        is_log = event["method"] == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning")
        is_call = event["method"] == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert")
        if is_log or is_call or event["method"] == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said))

    def open(self, address: str, width: int, height: int = 900) -> None:
        """Load a page in a window, or on a phone's screen, of this many CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        self.call("Page.navigate", url=address)
        self.wait_for(f"document.readyState === 'complete' && location.href === {json.dumps(address)}")

    def value(self, expression: str) -> Any:
        """The JSON value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.value(expression):
            assert time.monotonic() < deadline, f"{expression}; the page: {self.value('document.body.innerText')[:500]}"
            time.sleep(0.05)

    def picture(self, height: int | None = None) -> bytes:
        """A PNG of the page from its top, of its whole height or of so many CSS pixels."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])


@contextmanager
def browser() -> Iterator[Tab]:
    """A tab of a Chromium that ends with the block."""
    assert PROGRAM
    # Chromium's children write to the profile for a moment after it has ended.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [PROGRAM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_address(Path(profile) / "DevToolsActivePort"), max_size=None) as connection:
                yield Tab(connection)
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def _address(told: Path) -> str:
    """Where the first tab's DevTools listen, once the browser has told its port."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (told.exists() and told.read_text().count("\n")):
        assert time.monotonic() < deadline, "Chromium has not started"
        time.sleep(0.05)
    port = told.read_text().split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
    return str(tabs[0]["webSocketDebuggerUrl"])
