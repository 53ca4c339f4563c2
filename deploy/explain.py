"""A filter between a SuperNode and its log: our own lines and what matters of Flower's in words, the rest into a file.

It passes every line on at once, ignores the signals that are for the SuperNode, and ends when that has ended.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

from common.node_log import MARK

REASONS = {
    "[code: 2004] Failed to activate SuperNode": (
        "error: the SuperLink refuses this node's key. It is not registered there: give NAME.pub to the operator, for "
        "`fedmosaic register NAME.pub`. Or a node with this key was killed, or still runs: start again in a minute."
    ),
    "Connection to the SuperLink is unavailable": "the SuperLink does not answer; the node goes on trying",
    "Connection attempt failed, retrying": "the SuperLink does not answer; the node goes on trying",
}
LOUD = ("ERROR", "CRITICAL", "Traceback", "Error:", "error:")
"""What a line holds that is shown, though it is not ours: a node must not die without a word."""


def explain_what_follows(flowers_log: Path | None = None) -> None:
    """Send the output of this process, and of the program it becomes, through the filter. flowers_log: the file for
    Flower's own lines; None: they are shown like all others."""
    command = [sys.executable, "-m", "deploy.explain", *([str(flowers_log)] if flowers_log else [])]
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
    for line in sys.stdin.buffer:
        ours = MARK.encode() in line
        if flowers_log is not None and not ours:
            flowers_log.write(line)
        if flowers_log is None or ours or any(word.encode() in line for word in LOUD):
            sys.stdout.buffer.write(line[line.index(MARK.encode()) + len(MARK) :] if ours else line)
        for code, reason in REASONS.items():
            if code.encode() in line:
                sys.stdout.buffer.write(reason.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
