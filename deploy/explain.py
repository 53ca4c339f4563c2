"""A filter between a SuperNode and its log that says in words what Flower says in codes.

It passes every line on at once, ignores the signals that are for the SuperNode, and ends when that has ended.
"""

import os
import signal
import subprocess
import sys

REASONS = {
    "[code: 2004] Failed to activate SuperNode": (
        "error: the SuperLink refuses this node's key. It is not registered there: give NAME.pub to the operator, for "
        "`fedmosaic register NAME.pub`. Or a node with this key was killed, or still runs: start again in a minute."
    ),
}


def explain_what_follows() -> None:
    """Send the output of this process, and of the program it becomes, through the filter."""
    filtering = subprocess.Popen([sys.executable, "-m", "deploy.explain"], stdin=subprocess.PIPE)
    assert filtering.stdin is not None
    for output in (sys.stdout, sys.stderr):
        output.flush()
        os.dup2(filtering.stdin.fileno(), output.fileno())


def main() -> None:
    """Copy lines from standard input to standard output."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(line)
        for code, reason in REASONS.items():
            if code.encode() in line:
                sys.stdout.buffer.write(reason.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
