"""The page commands.md: what `--help` of every command says."""

import argparse
from collections.abc import Iterator
from functools import partial

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from deploy.cli import parser

INTRO = """# Command reference

Made from the code: what `fedmosaic COMMAND --help` says. A command's exit status is 0 when it is done, 1 when it
failed, 2 for a mistake in what was asked for, 130 when it was interrupted.
"""
WIDTH = 80


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str | None:
    """Put the reference in the place of what stands there in the repository."""
    return reference() if page.file.src_uri == "reference/commands.md" else None


def reference() -> str:
    """The page in Markdown."""
    return "\n".join([INTRO, *(described(name, parser) for name, parser in sorted(parsers()))])


def described(name: str, parser: argparse.ArgumentParser) -> str:
    """A command's section."""
    parser.formatter_class = partial(argparse.HelpFormatter, width=WIDTH)
    return f"## {name}\n\n```text\n{parser.format_help().strip()}\n```\n"


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command and its parser."""
    for action in parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()
