"""The documentation: the site builds without a warning, and what pages say of the code is so."""

import argparse
import ast
import html
import json
import re
import sys
from pathlib import Path
from typing import get_origin
from xml.etree import ElementTree

import browser as chromium
import pytest
from conftest import ROOT
from mkdocs.commands.build import build
from mkdocs.config import load_config
from pages import PAGES, commands, mentions, sections

from client import policy
from common.config import experiment as config
from common.config.component import Component, Options, families, find, own_names
from common.encoders import signal, spectrogram
from common.encoders import text as text_encoder
from common.encoders.shared import picture_augmentation
from deploy.cli import parser
from deploy.study.bench import suite

HOOKS = ROOT / "docs" / "hooks"
SECTION = re.compile(r'<h[23] id="[^"]*">(.*?)<a.*?</h[23]>(.*?)(?=<h[23] |</article>)', re.S)
LOADED = re.compile(r"""<(?:script|img|source|iframe)\b[^>]*\bsrc=["']?([^"' >]+)|<link\b[^>]*\bhref=["']?([^"' >]+)""")
LINK = re.compile(r"\]\(([^)#\s]+)")
QUOTED = re.compile(r"^\| `([^`]+)`", re.M)
SECTIONS = [value for module in (config, policy, suite, picture_augmentation, signal, spectrogram, text_encoder)
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Options) and not issubclass(value, Component)
            and value.__module__ == module.__name__ and not value.__name__.startswith("_")]  # fmt: skip
COMPONENTS = [(family, name) for family in families() for name in own_names(family)]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it: a page without a place in the navigation and a link that leads nowhere are
    errors."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


@pytest.fixture(scope="session")
def described(site: Path) -> list[tuple[str, dict[str, str]]]:
    """The sections of the configuration reference: heading, and by option what is said of it."""
    found = []
    for heading, body in SECTION.findall((site / "reference" / "configuration.html").read_text()):
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)]
        found.append((html.unescape(heading), {re.sub("<.*?>", "", row[0]): row[-1].strip() for row in rows if row}))
    return found


def options(kind: type[Options]) -> set[str]:
    """The options that a user sets: not the name that tells the members of a union apart."""
    fields = kind.model_fields.items()
    return {name for name, field in fields if name != "name" or "Literal" not in str(get_origin(field.annotation))}


@pytest.mark.parametrize("kind", SECTIONS, ids=lambda kind: kind.__name__)
def test_every_option_of_a_section_is_described(
    kind: type[Options], described: list[tuple[str, dict[str, str]]]
) -> None:
    fitting = [rows for _, rows in described if rows.keys() == options(kind)]
    assert any(all(rows.values()) for rows in fitting)


@pytest.mark.parametrize(("family", "name"), COMPONENTS, ids=lambda part: part)
def test_every_option_of_a_component_is_described(
    family: str, name: str, described: list[tuple[str, dict[str, str]]]
) -> None:
    fitting = [rows for heading, rows in described if heading == name and rows.keys() == options(find(family, name))]
    assert any(all(rows.values()) for rows in fitting)


def test_ranges_and_defaults_are_those_of_the_code(site: Path) -> None:
    page = re.sub(r"\s+", " ", (site / "reference" / "configuration.html").read_text())
    row = "<td><code>{}</code></td> <td>{}</td> <td>{}</td>"
    assert row.format("alpha", "number &gt; 0", "<code>0.5</code>") in page
    assert row.format("lr", "number &gt; 0", "<strong>required</strong>") in page
    assert row.format("sample", "integer ≥ 1 or none", "<code>null</code>") in page
    assert row.format("dtype", "<code>float32</code>, <code>bfloat16</code>", "<code>float32</code>") in page


@pytest.mark.parametrize(
    "page", ["commands.md", "configuration.md", "results.md", "summary.schema.json", "metrics.schema.json"]
)
def test_the_committed_reference_is_the_one_that_the_code_gives(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(HOOKS), *sys.path])
    from reference import pages

    (text,) = [text for path, text in pages().items() if path.name == page]
    committed = (ROOT / "docs" / "reference" / page).read_text()
    assert committed == text, "make reference"


def test_every_command_and_option_is_on_the_page_with_its_help() -> None:
    found = sections((ROOT / "docs" / "reference" / "commands.md").read_text())
    (known,) = [action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    assert found.keys() == known.keys()
    for name, command in known.items():
        assert f"Usage: `fedmosaic {name}" in found[name]
        for action in command._actions:
            if action.option_strings and not isinstance(action, argparse._HelpAction):
                row = re.search(rf"^\| `{action.option_strings[-1]}[ `].*$", found[name], re.M)
                assert row and len(row[0].split(" |")) == 4


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loaded = [source or target for source, target in LOADED.findall(page.read_text())]
        assert loaded
        assert not [address for address in loaded if re.match(r"(\w+:)?//", address)], page.name


def test_the_search_index_is_a_script_that_a_page_from_a_disk_can_load(site: Path) -> None:
    text = (site / "search" / "search_index.js").read_text()
    index = json.loads(text.removeprefix("var __index = "))
    assert any("infiltration" in entry["text"] for entry in index["docs"])
    assert 'src="../javascripts/iframe-worker.js"' in (site / "explanation" / "security.html").read_text()


@pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("page", ["index.html", "how-to/deploy.html"])
def test_the_search_works_without_a_server(site: Path, page: str) -> None:
    with chromium.browser() as tab:
        tab.open((site / page).as_uri(), 1280)
        tab.value("document.querySelector('#__search').click()")
        tab.value(
            "(() => { const field = document.querySelector('[data-md-component=search-query]');"
            " field.value = 'infiltration'; field.dispatchEvent(new KeyboardEvent('keyup', {bubbles: true})) })()"
        )
        tab.wait_for("document.querySelectorAll('.md-search-result__link').length > 3")
        found = tab.value("[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)")
        assert any(address.startswith((site / "explanation" / "method-fedcmi.html").as_uri()) for address in found)
        assert not tab.complaints


def test_the_example_policy_is_part_of_the_site(site: Path) -> None:
    assert 'href="../source/deploy/hosts/site.yaml"' in (site / "explanation" / "security.html").read_text()
    assert (site / "source" / "deploy" / "hosts" / "site.yaml").read_bytes() == (
        ROOT / "deploy" / "hosts" / "site.yaml"
    ).read_bytes()


def test_the_committed_figures_are_those_that_the_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ROOT / "docs" / "figures"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    from draw import figures

    drawn = figures()
    assert drawn.keys() == {path.name for path in folder.glob("*.svg")}
    for name, text in drawn.items():
        assert (folder / name).read_text() == text, "make figures"
        assert ElementTree.fromstring(text).get("aria-label")
        assert not re.search(r"url\((?!#)|href|@import|@font-face", text)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_pages_outside_of_the_site_lead_somewhere(page: str) -> None:
    links = [link for link in LINK.findall((ROOT / page).read_text()) if "://" not in link]
    assert not [link for link in links if not (ROOT / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_a_page_are_commands_of_the_program(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in commands(page.read_text()):
        try:
            parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"fedmosaic {' '.join(arguments)}: {capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_names_commands_and_options_that_exist(page: Path) -> None:
    (known,) = [action.choices for action in parser()._actions if isinstance(action.choices, dict)]
    for command, *words in mentions(page.read_text()):
        assert command in known
        assert {word for word in words if word.startswith("--")} <= known[command]._option_string_actions.keys()


def test_commands_are_found_on_pages() -> None:
    found = {page: list(commands(page.read_text())) for page in PAGES}
    assert ["bench", "smoke"] in found[ROOT / "docs" / "how-to" / "compare-methods.md"]
    assert ["bench", "speed"] in found[ROOT / "docs" / "explanation" / "performance.md"]  # indented
    assert any(
        "--shard" in arguments and "--policy" in arguments for arguments in found[ROOT / "README.md"]
    )  # continued
    deploy = found[ROOT / "docs" / "how-to" / "deploy.md"]
    assert {"certs", "register", "doctor", "run"} <= {arguments[0] for arguments in deploy}  # by sudo, by a variable


def written(path: Path) -> set[str]:
    """The texts of a source file, `…` for what is filled in."""
    texts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
            texts.add("".join(parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.add(node.value)
    return texts


def test_messages_quoted_in_troubleshooting_are_those_of_the_code() -> None:
    texts = {text for side in ("client", "common", "deploy", "server") for path in (ROOT / side).rglob("*.py")
             for text in written(path)}  # fmt: skip
    quoted = QUOTED.findall((ROOT / "docs" / "how-to" / "troubleshooting.md").read_text())
    assert len(quoted) > 30
    for message in quoted:
        assert len(message.replace("…", "")) > 10, message
        pattern = re.compile(".*".join(re.escape(part) for part in message.split("…")), re.S)
        assert any(pattern.search(text) for text in texts), message
