"""Possible problems in the sites' data, from the findings in their introductions."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from common.findings import Findings, unreadable_in_words
from common.words.units import few
from server.sites.rates import different_rates

LISTED = 5
"""The maximum number of names of one kind in a sentence."""
COMPARED = ("sound", "signal")
"""Kinds that should have the same form at all sites. Images are not compared, because their sizes always differ."""

ACCENTS = frozenset(map(chr, range(0x300, 0x370)))
"""Accents of Latin, Greek and Cyrillic. In other scripts, such marks distinguish letters."""


@dataclass(frozen=True)
class Concern:
    """A possible problem. site: the site's name, or "" for all sites."""

    site: str
    what: str


def concerns(sites: Mapping[str, Any], classes: Sequence[str]) -> list[Concern]:
    """The possible problems, by site. sites: by name, the site's entry in metrics.jsonl or summary.json."""
    found = {site: findings_of(about) for site, about in sites.items()}
    usual = _usual_forms(found)
    own = [
        Concern(site, what)
        for site, modalities in sorted(found.items())
        for modality, findings in sorted(modalities.items())
        for what in [*_of_one(modality, findings), *_unusual(modality, findings, usual)]
    ]
    noisy = [
        Concern(site, f"its policy adds noise to its updates ({said})")
        for site, about in sorted(sites.items())
        if isinstance(about, dict) and (said := about.get("local_dp"))
    ]
    near = [Concern("", f"classes {said} differ only in case, blanks or accents") for said in alike(classes)]
    rates = [Concern("", what) for what in different_rates(found)]
    return [*own, *noisy, *rates, *near]


def findings_of(about: Any) -> dict[str, Findings]:
    """The findings by modality in a site's entry of metrics.jsonl or summary.json; empty if the entry is malformed."""
    told = about.get("findings") if isinstance(about, dict) else None
    try:
        return {str(m): Findings.model_validate(found) for m, found in told.items()} if isinstance(told, dict) else {}
    except ValidationError:
        return {}


def alike(names: Sequence[str]) -> Iterable[str]:
    """Groups of names that differ only in case, blanks or accents, e.g. "'Cat' and 'cat'"."""
    ordered = sorted(names, key=lambda name: (folded(name), name))
    for _, group in groupby(ordered, key=folded):
        if len(same := list(group)) > 1:
            yield " and ".join(map(repr, same))


def unlike(given: Sequence[str], wanted: Sequence[str]) -> str:
    """The differences of two lists of class names, e.g. "'Cat' instead of 'cat'", with a few names at most."""
    here, there = set(given), set(wanted)
    lacking = [name for name in wanted if name not in here]
    besides = [name for name in given if name not in there]
    if not lacking and not besides:
        return "the same names in another order"
    near = {folded(name): name for name in lacking}
    swapped = [(name, near[folded(name)]) for name in besides if folded(name) in near]
    said = [f"{name!r} instead of {meant!r}" for name, meant in swapped[:LISTED]]
    found, taken = {name for name, _ in swapped}, {meant for _, meant in swapped}
    left = [name for name in lacking if name not in taken]
    more = [name for name in besides if name not in found]
    if len(swapped) > LISTED:
        said.append(f"{len(swapped) - LISTED} more such names")
    return ", ".join([*said, *_counted("without", left), *_counted("with", more)])


def _counted(word: str, names: Sequence[str]) -> list[str]:
    return [f"{word} {few(list(map(repr, names)), LISTED)}"] if names else []


def folded(name: str) -> str:
    """A name without the parts that are easily confused: case, blanks, hyphens, underscores and accents."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(sign for sign in letters if not (sign.isspace() or sign in "-_" or sign in ACCENTS))


def _of_one(modality: str, findings: Findings) -> Iterable[str]:
    if findings.unreadable:
        yield unreadable_in_words(modality, findings)
    if findings.constant:
        share = f"{findings.constant} of {findings.values} {modality} values"
        yield f"{share} are silent, blank or constant"
    if findings.conflicting:
        yield f"{findings.conflicting} {modality} files have the same bytes as a file with another label"
    for note, count in findings.notes.items():
        yield f"{count} of {findings.values} {modality} values: {note}"


def _main_form(findings: Findings) -> str:
    form = max(findings.forms, key=findings.forms.__getitem__, default="")
    return form if form.startswith(COMPARED) else ""


def _usual_forms(found: Mapping[str, Mapping[str, Findings]]) -> dict[str, str]:
    """By modality, the form that is the most frequent one at more than half of the sites."""
    forms: dict[str, Counter[str]] = {}
    for modalities in found.values():
        for modality, findings in modalities.items():
            if form := _main_form(findings):
                forms.setdefault(modality, Counter())[form] += 1
    leading = {modality: counted.most_common(1)[0] for modality, counted in forms.items()}
    return {modality: form for modality, (form, count) in leading.items() if 2 * count > forms[modality].total()}


def _unusual(modality: str, findings: Findings, usual: Mapping[str, str]) -> Iterable[str]:
    form = _main_form(findings)
    if form and form != usual.get(modality, form):
        yield f"its {modality} is mostly '{form}', but most sites have '{usual[modality]}'"
    elif form and len([name for name in findings.forms if name.startswith(COMPARED)]) > 1:
        yield f"its {modality} has several forms: " + ", ".join(
            f"{count} x '{name}'" for name, count in findings.forms.items()
        )
