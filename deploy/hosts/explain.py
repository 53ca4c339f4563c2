"""A filter between a SuperNode and its log: our own lines and what matters of Flower's in words, the rest into a file.

It passes every line on at once, ignores the signals that are for the SuperNode, and ends when that has ended.
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
"""Environment variable of a SuperNode: the file for Flower's own lines, "-" for none. Without it, nothing is hidden."""
REFUSED = "2004"
"""Flower's code for a node that it does not let in."""
REFUSED_KEY = (
    "the SuperLink refuses this node's key. It is not registered there: give NAME.pub to the operator, for "
    "`fedmosaic register NAME.pub`. Or a node with this key was killed less than a minute ago, or still runs."
)
TRIES_AGAIN = "the SuperLink cannot be reached, or does not let this node in; the node tries again and again"
REASONS = {
    f"[code: {REFUSED}] Failed to activate SuperNode": f"error: {REFUSED_KEY}",
    "Connection to the SuperLink is unavailable": TRIES_AGAIN,
    "Connection attempt failed, retrying": TRIES_AGAIN,
    "Connection successful after": "the SuperLink has answered",
    "Heartbeat failed unexpectedly": "error: the SuperLink no longer knows this node: start it again",
    "SSL/TLS handshake error": "error: the SuperLink's certificate is not trusted here; `fedmosaic doctor` says why",
}
LOUD = ("ERROR", "CRITICAL", "Traceback", "Error:", "error:")
"""What a line holds that is shown, though it is not ours: a node must not die without a word."""


def explain_what_follows(flowers_log: Path | None = None) -> None:
    """Send the output of this process, and of the program it becomes, through the filter. flowers_log: the file for
    Flower's own lines; None: they are shown like all others."""
    command = [sys.executable, "-m", "deploy.hosts.explain", *([str(flowers_log)] if flowers_log else [])]
    filtering = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert filtering.stdin is not None
    for output in (sys.stdout, sys.stderr):
        output.flush()
        os.dup2(filtering.stdin.fileno(), output.fileno())


def main() -> None:
    """Copy lines from standard input to standard output, Flower's own to the file that is named, if one is."""
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
        if reason and reason != said:  # once, however often Flower tries
            shown += time.strftime("%H:%M:%S ").encode() + reason + b"\n"
        said = reason or (TRIES_AGAIN.encode() if REFUSED_KEY.encode() in line else said)
        sys.stdout.buffer.write(shown)
        sys.stdout.buffer.flush()


def _shown(line: bytes, flowers_log: BinaryIO | None) -> bytes:
    """What of a line is for people; the rest goes into the file."""
    _, ours, words = line.partition(MARK.encode())
    if ours:
        return words
    if flowers_log is None:
        return line
    flowers_log.write(line)
    return line if any(word.encode() in line for word in LOUD) else b""


if __name__ == "__main__":
    main()
