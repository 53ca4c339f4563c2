"""What is wrong, or may be, with the data of the sites, in words: by what their introductions tell."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pydantic import ValidationError

from common.findings import Findings, unreadable_in_words
from common.words.units import few

LISTED = 5
"""Names of classes that a sentence holds at most of a kind."""
COMPARED = ("sound", "signal")
"""Kinds of which all sites should have the same form; pictures differ in size as a matter of course."""

ACCENTS = frozenset(map(chr, range(0x300, 0x370)))
"""Marks on letters of Latin, Greek and Cyrillic; those of other scripts are letters of their own."""


@dataclass(frozen=True)
class Concern:
    """Something to look at, at a site, or at all of them ("")."""

    site: str
    what: str


def concerns(sites: Mapping[str, Any], classes: Sequence[str]) -> list[Concern]:
    """What is to be looked at, site by site. sites: by name, what metrics.jsonl and summary.json say of each."""
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
    near = [Concern("", f"classes {said} differ in case, blanks or accents only") for said in alike(classes)]
    return [*own, *noisy, *near]


def findings_of(about: Any) -> dict[str, Findings]:
    """By modality, what a site's entry in metrics.jsonl or summary.json tells; nothing where it is malformed."""
    told = about.get("findings") if isinstance(about, dict) else None
    try:
        return {str(m): Findings.model_validate(found) for m, found in told.items()} if isinstance(told, dict) else {}
    except ValidationError:
        return {}


def alike(names: Sequence[str]) -> Iterable[str]:
    """Names that differ in case, blanks or Unicode's form only, e.g. "'Cat' and 'cat'"."""
    ordered = sorted(names, key=lambda name: (folded(name), name))
    for _, group in groupby(ordered, key=folded):
        if len(same := list(group)) > 1:
            yield " and ".join(map(repr, same))


def unlike(given: Sequence[str], wanted: Sequence[str]) -> str:
    """How one list of class names differs from another, e.g. "'Cat' instead of 'cat'"; a few names at most."""
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
        said.append(f"{len(swapped) - LISTED} more of the kind")
    return ", ".join([*said, *_counted("without", left), *_counted("with", more)])


def _counted(word: str, names: Sequence[str]) -> list[str]:
    return [f"{word} {few(list(map(repr, names)), LISTED)}"] if names else []


def folded(name: str) -> str:
    """A name without what is easily mistaken: case, blanks and hyphens, accents."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(sign for sign in letters if not (sign.isspace() or sign in "-_" or sign in ACCENTS))


def _of_one(modality: str, findings: Findings) -> Iterable[str]:
    if findings.unreadable:
        yield unreadable_in_words(modality, findings)
    if findings.constant:
        share = f"{findings.constant} of {findings.values} {modality} values"
        yield f"{share} are silent, blank or one number"
    if findings.conflicting:
        yield f"{findings.conflicting} {modality} files have the same bytes as one with another label"


def _main_form(findings: Findings) -> str:
    form = max(findings.forms, key=findings.forms.__getitem__, default="")
    return form if form.startswith(COMPARED) else ""


def _usual_forms(found: Mapping[str, Mapping[str, Findings]]) -> dict[str, str]:
    """By modality, the form that most sites have most of."""
    forms: dict[str, Counter[str]] = {}
    for modalities in found.values():
        for modality, findings in modalities.items():
            if form := _main_form(findings):
                forms.setdefault(modality, Counter())[form] += 1
    return {modality: counted.most_common(1)[0][0] for modality, counted in forms.items()}


def _unusual(modality: str, findings: Findings, usual: Mapping[str, str]) -> Iterable[str]:
    form = _main_form(findings)
    if form and form != usual[modality]:
        yield f"its {modality} is mostly '{form}', that of most sites '{usual[modality]}'"
    elif form and len([name for name in findings.forms if name.startswith(COMPARED)]) > 1:
        yield f"its {modality} differs: " + ", ".join(f"{count} x '{name}'" for name, count in findings.forms.items())
