"""`fedmosaic completion`: print a shell script that completes the command line."""

import argparse
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic completion`."""
    parser = commands.add_parser(
        "completion",
        help="print a script that lets a shell complete commands, options and files",
        epilog="example: fedmosaic completion bash > ~/.local/share/bash-completion/completions/fedmosaic",
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    import shtab

    for command in _commands(options.parser):
        for action in command._actions:
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(options.parser, options.shell))


def _commands(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return list(commands.choices.values())
