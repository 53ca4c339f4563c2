"""The page docs/reference/commands.md: every command with its options, from the parsers themselves."""

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from deploy.cli import parser

INTRO = """# Command reference

This page lists every command of `fedmosaic` with its options. It is made from the code by `make reference`.
`fedmosaic COMMAND --help` prints the same in the terminal. The exit status of a command is:

| status | meaning |
|---|---|
| 0 | the command completed |
| 1 | the command failed |
| 2 | the options, or a file that they name, have a mistake |
| 130 | the command was interrupted |
"""
UNSET = (None, False, "", argparse.SUPPRESS)
DEFAULT = re.compile(r"\s*\(default: ([^()]*(?:\([^()]*\)[^()]*)*)\)")
"""Where a help text names the default itself, because it depends on the host or on other options."""
WIDTH = 120


def reference() -> str:
    """The page in Markdown."""
    return "\n".join([INTRO, *sections(parser(), "fedmosaic", 2)])


def sections(inner: argparse.ArgumentParser, program: str, level: int) -> Iterator[str]:
    """A section for each command of a parser in alphabetical order, each followed by those of its own commands."""
    for action in inner._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in sorted(action.choices.items()):
                yield section(command, f"{program} {name}", helps.get(name, ""), level)
                yield from sections(command, f"{program} {name}", level + 1)


def section(command: argparse.ArgumentParser, program: str, summary: str, level: int) -> str:
    """What a command does, how it is called, a table for each group of its options, and an example."""
    parts = [f"{'#' * level} {program.removeprefix('fedmosaic ')}", sentence(summary)]
    if command.description and sentence(command.description) != sentence(summary):
        parts.append(escaped(command.description))
    parts = [textwrap.fill(part, WIDTH, break_long_words=False, break_on_hyphens=False) for part in parts]
    parts.append(f"Usage: `{usage(command, program)}`")
    for group in command._action_groups:
        if shown := list(documented(group._group_actions)):
            own = group.title not in ("positional arguments", "options", None)
            parts += [f"{sentence(group.title or '').rstrip('.')}:"] * own + [table(command, shown)]
    if command.epilog:
        lines = re.split(r"\s{2,}", command.epilog.strip().removeprefix("example: "))
        parts.append("\n".join(["Example:\n\n```text", *lines, "```"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def documented(actions: Iterable[argparse.Action]) -> Iterator[argparse.Action]:
    """Without --help, which every command has, without commands of a command, and without what is hidden."""
    for action in actions:
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction) and action.help != "==SUPPRESS==":
            yield action


def usage(command: argparse.ArgumentParser, program: str) -> str:
    """One line: the options that a call must have, the others in short, and the arguments."""
    actions = list(documented(command._actions))
    required = [call(action) for action in actions if action.option_strings and action.required]
    others = ["[OPTIONS]"] * any(action.option_strings and not action.required for action in actions)
    inner = ["COMMAND"] * any(isinstance(action, argparse._SubParsersAction) for action in command._actions)
    arguments = [values(action) for action in actions if not action.option_strings]
    return " ".join([program, *required, *others, *inner, *arguments])


def call(action: argparse.Action) -> str:
    """An option as it is written: --out DIR."""
    return f"{action.option_strings[-1]} {values(action)}".strip()


def values(action: argparse.Action) -> str:
    """The values of an option or argument: DIR, NAME [NAME ...]."""
    if action.nargs == 0:
        return ""
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None and action.metavar is None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    shapes: Mapping[object, str] = {
        None: "{0}", "?": "[{0}]", "*": "[{0} ...]", "+": "{0} [{0} ...]", argparse.REMAINDER: "...",
    }  # fmt: skip
    return shapes.get(action.nargs, "{0}").replace("{0}", metavar)


def table(command: argparse.ArgumentParser, actions: list[argparse.Action]) -> str:
    """The options or arguments of a group, one per row."""
    rows = [
        f"| {cell(name(action))} | {default(command, action)} | {meaning(command, action)} |".replace("|  |", "| |")
        for action in actions
    ]
    kind = "option" if actions[0].option_strings else "argument"
    return "\n".join([f"| {kind} | default | meaning |", "|---|---|---|", *rows])


def name(action: argparse.Action) -> str:
    """The column with what a user writes."""
    return f"`{call(action) if action.option_strings else values(action)}`"


def default(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The default as a user would write it, or in words where the help has it."""
    if action.required and (action.option_strings or action.nargs not in ("?", "*", argparse.REMAINDER)):
        return "**required**"
    if said := DEFAULT.search(help_of(command, action)):
        return cell(escaped(said[1]))
    if action.default in UNSET or action.nargs == 0 or action.default == []:
        return ""
    values = action.default if isinstance(action.default, list | tuple) else [action.default]
    words = " ".join(value.as_posix() if isinstance(value, Path) else str(value) for value in values)
    return cell(f"`{words}`")


def meaning(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The help of an option, and the options that it excludes."""
    text = DEFAULT.sub("", help_of(command, action))
    others = [
        other.option_strings[-1]
        for group in command._mutually_exclusive_groups
        if action in group._group_actions
        for other in group._group_actions
        if other is not action and other.option_strings
    ]
    excluded = f" (not together with {', '.join(f'`{other}`' for other in others)})" if others else ""
    return cell(escaped(text) + excluded)


def help_of(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The help of an option, with the values that argparse fills in."""
    return action.help % {**vars(action), "prog": command.prog} if action.help else ""


def sentence(text: str) -> str:
    """A help text as a sentence of its own."""
    text = escaped(text.strip())
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith((".", ":")) else ".")


def escaped(text: str) -> str:
    """Help text as Markdown: in one line, and with escapes for the characters that have a meaning in Markdown."""
    line = " ".join(text.split())
    return line if "`" in line else line.replace("*", r"\*").replace("<", "&lt;")


def cell(text: str) -> str:
    """Text that may be in a table."""
    return text.replace("|", r"\|")
