"""A filter for the log of a SuperNode. It shows fedmosaic's own lines, explains important lines of Flower, and writes
the other lines of Flower to a file.

The filter passes every line on at once, ignores the signals for the SuperNode, and ends after the SuperNode.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

from common.words.node_log import MARK

FLOWER_LOG = "FEDMOSAIC_FLOWER_LOG"
"""Environment variable of a SuperNode: the file for Flower's own lines, or "-" for none. Without it, all lines are
shown."""
REFUSED = "2004"
"""Flower's code for a refused node."""
REFUSED_KEY = (
    "the SuperLink refuses this node's key. Either the key is not registered there: send NAME.pub to the operator, for "
    "`fedmosaic register NAME.pub`. Or a node with this key still runs, or was killed less than a minute ago."
)
TRIES_AGAIN = "the SuperLink cannot be reached, or refuses this node; the node keeps trying"
REASONS = {
    f"[code: {REFUSED}] Failed to activate SuperNode": f"error: {REFUSED_KEY}",
    "Connection to the SuperLink is unavailable": TRIES_AGAIN,
    "Connection attempt failed, retrying": TRIES_AGAIN,
    "Connection successful after": "the SuperLink has answered",
    "Heartbeat failed unexpectedly": "error: the SuperLink does not list this node any more: start the node again",
    "SSL/TLS handshake error": "error: this host does not trust the SuperLink's certificate; run `fedmosaic doctor`",
}
LOUD = ("ERROR", "CRITICAL", "Traceback", "Error:", "error:")
"""Words that make a line of Flower visible, so that a node never fails silently."""


def explain_what_follows(flowers_log: Path | None = None) -> None:
    """Send the output of this process, and of the program that it becomes, through the filter. flowers_log: the file
    for Flower's own lines; None: show them too."""
    command = [sys.executable, "-m", "deploy.hosts.explain", *([str(flowers_log)] if flowers_log else [])]
    filtering = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert filtering.stdin is not None
    for output in (sys.stdout, sys.stderr):
        output.flush()
        os.dup2(filtering.stdin.fileno(), output.fileno())


def main() -> None:
    """Copy lines from standard input to standard output, and Flower's own lines to the file in the argument, if any."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if len(sys.argv) == 1:
        _copy(None)
        return
    with open(sys.argv[1], "ab", buffering=0) as file:
        _copy(file)


def _copy(flowers_log: BinaryIO | None) -> None:
    said = b""
    for line in sys.stdin.buffer:
        shown = _shown(line, flowers_log)
        reason = next((words for code, words in REASONS.items() if code.encode() in line), "").encode()
        if reason and reason != said:  # only once, even if Flower tries many times
            shown += time.strftime("%H:%M:%S ").encode() + reason + b"\n"
        said = reason or (TRIES_AGAIN.encode() if REFUSED_KEY.encode() in line else said)
        sys.stdout.buffer.write(shown)
        sys.stdout.buffer.flush()


def _shown(line: bytes, flowers_log: BinaryIO | None) -> bytes:
    """The visible part of a line. A hidden line goes to the file."""
    _, ours, words = line.partition(MARK.encode())
    if ours:
        return words
    if flowers_log is None:
        return line
    flowers_log.write(line)
    return line if any(word.encode() in line for word in LOUD) else b""


if __name__ == "__main__":
    main()
