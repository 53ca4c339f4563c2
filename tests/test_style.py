"""Turns of phrase that do not belong into our texts: docs/contributing/style.md says why."""

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

COUNTED = "clients?|commands?|completers?|data sets?|encoders?|entr(?:y|ies)|examples?|figures?|files?|folders?|items?"
COUNTED += "|lines?|methods?|models?|nodes?|optimisers?|pages?|points?|process(?:es)?|rows?|runs?|sentences?|sites?"
COUNTED += "|strateg(?:y|ies)|SuperNodes?|terms?|tests?|values?"
BANNED = {
    "begins with its object": r"\bwho(?:ever|soever)\b|\bof whom\b",
    "a telegram: write 'per'": rf"\b(?:an?|one) (?:{COUNTED}) an? [a-z]+\b(?! of\b)|\b(?:an?|one) (?:{COUNTED}) each\b",
    "a thing with a will": r"\b(?:file|page|log|policy|config|experiment|table|report|message|command|option)s? "
    r"(?:says?|wants?|knows?|hears?|tells?|asks?)\b",
    "old-fashioned": r"\banew\b|\bas ever\b|\bat hand\b|\blikewise\b|\bbesides\b|\bnobody\b|\bof ours\b|\bto be had\b"
    r"|\bin vain\b|\bhence\b|\bthereof\b|\bto and fro\b|\bkin\b",
    "compressed": r"\bnothing but\b|\bin any case\b|\bfor good\b|\bas well as ever\b|\bof its own accord\b|\bin words\b"
    r"|\bby then\b|\bof no (?:use|help)\b",
    "place of a text: write 'is in'": r"\bstands? (?:in|there|below|beside|above|with)\b"
    r"|\blies? (?:in|there|beside)\b",
    "write 'in addition to', 'compared with' or 'next to'": r"(?-i:\bbeside\b)",
    "compressed: name the amount or the condition": r"\b(?:whatever|whichever)\b|\bhowever (?:many|much|few|un)"
    r"|\bso-many\b|\bone an? file\b|; no [a-z ]+ itself\b",
    "begins with Most or What: write 'The maximum number of', 'The content of'": r'^\s*"""(?:Most|What)\b',
    "turned: begins with 'Of'": r"(?:^|[.!?] |\"\"\")(?-i:Of) (?:an?|the|its|these|two|several|many|very|all|every)\b",
    "write 'missing values', 'the packages below'": r"\b(?:completes?|generates?) what is missing\b"
    r"|\bwhat is below\b",
    "goes on: write 'continues'": r"\bgoes on\b",
    "is no error: write 'is not an error'": r"\b(?:is no|are no) (?:errors?|failures?)\b",
    "asked, told, looked for": r"\b(?:is|are|was|were) (?:asked|told|looked for|let go|held against)\b",
    "quoted from the list of sins": r"\b(?:is|are) given twice\b|\blost from sight\b|\bholds? a year\b|\babout to\b"
    r"|\bmore clients to ask\b|\bwho it is\b",
}
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if not page.with_suffix(".json").exists() and page.parent.name != "reference"
)
"""Without the tables of `fedmosaic bench`, which keep the words of the code that wrote them, and docs/reference, which
`make reference` copies from the code."""
CODE = sorted(
    path for side in ("server", "client", "common", "deploy", "fedmosaic") for path in (ROOT / side).rglob("*.py")
)
OTHERS = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "deploy").rglob("*.yaml"), ROOT / "Makefile"])
QUOTING = {ROOT / "docs" / "contributing" / "style.md"}
"""Pages that quote how not to write."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and what people read: of Python files comments and strings, of others everything but code."""
    if path.suffix != ".py":
        fenced = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), path.read_text(), flags=re.M | re.S)
        yield from enumerate(re.sub(r"`[^`\n]+`", "`...`", fenced).splitlines(), start=1)
        return
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(
                tokenize, "FSTRING_MIDDLE", -1
            ):
                yield from enumerate(token.string.splitlines(), start=token.start[0])


@pytest.mark.parametrize("path", [*PAGES, *CODE, *OTHERS], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_has_a_banned_turn(path: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {hit[0]!r} ({why})"
        for number, line in texts(path)
        for why, pattern in BANNED.items()
        if path not in QUOTING and (hit := re.search(pattern, line, re.IGNORECASE))
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "Whoever did not answer is asked again who it is",
        "He is about to start",
        "3 usable replies and 0 more clients to ask",
        "id 7 is given twice",
        "the node is lost from sight",
        "metrics.jsonl: a line a round",
        "one SuperNode a site",
        "Strategies, one a file",
        "What several methods have in common; no method itself.",
        '"""Most characters of a reason."""',
        "Of an animation, the first picture is used.",
        "Every site has one vote, whatever number of examples it reports.",
        "Run a linear head beside it",
    ],
)
def test_the_list_finds_the_sentences_that_it_was_made_of(line: str) -> None:
    assert any(re.search(pattern, line, re.IGNORECASE) for pattern in BANNED.values())
