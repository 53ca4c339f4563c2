"""What tests read out of the documentation's pages."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile

from conftest import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.M | re.S)
CALL = re.compile(r"^[^#]*?(?:^|[\s/$])fedmosaic ([a-z]+(?: .*)?)$")
INLINE = re.compile(r"`fedmosaic ([a-z][^`]*)`")
INDENTED = re.compile(r"(?:^ {4}[^\n]*\n)+", re.M)


def sections(text: str) -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.+)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def files(text: str) -> dict[str, str]:
    """The fenced blocks that are files, by name."""
    blocks = ((re.search(r'title="([^"]+)"', after), block) for _, after, block in FENCE.findall(text))
    return {title[1]: block for title, block in blocks if title}


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every line of code that calls `fedmosaic`, continued lines joined."""
    code = [block for *_, block in FENCE.findall(text)] + INDENTED.findall(FENCE.sub("", text))
    for line in "\n".join(code).replace("\\\n", " ").splitlines():
        if called := CALL.search(line):
            yield list(takewhile(lambda word: word != ">", shlex.split(called[1], comments=True)))


def mentions(text: str) -> Iterator[list[str]]:
    """The words after `fedmosaic` where prose quotes a command, which need not be complete."""
    for said in INLINE.findall(FENCE.sub("", text)):
        yield said.split()
