"""The status of each site, from the files of a run: whether it takes part, since when it is missing, and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SPANS_AT_MOST = 8
TAKES_PART = "takes part"


@dataclass(frozen=True)
class Standing:
    """The status of a site. state: e.g. "missing since round 4". why: the reason, or earlier absences, or ""."""

    state: str
    why: str = ""


def standings(
    rounds: Sequence[Mapping[str, Any]], known: Iterable[str], refused: Mapping[str, Any], missing: Mapping[str, Any]
) -> dict[str, Standing]:
    """The status by site. rounds: the lines of metrics.jsonl. known: every site that took part. refused, missing: the
    current reasons by site."""
    found = {site: _present(_absences(site, rounds)) for site in known}
    found |= {
        site: Standing(_missing_since(_absences(site, rounds), rounds), str(why)) for site, why in missing.items()
    }
    return found | {site: Standing("refused", str(why)) for site, why in refused.items()}


def changes(before: Mapping[str, Any], line: Mapping[str, Any]) -> list[str]:
    """Sentences about the sites that were lost or came back between two lines of metrics.jsonl.

    Sites that failed in the round are not included, because the round's line lists them.
    """
    was, now = _told(before, "missing"), _told(line, "missing")
    lost = [
        f"{site} is missing: {why}" for site, why in sorted(now.items()) if site not in {**was, **_told(line, "failed")}
    ]
    return [*lost, *(f"{site} is back" for site in sorted(was) if site not in now and site in line.get("clients", ()))]


def spans(rounds: Sequence[int]) -> str:
    """A short list of rounds, e.g. "rounds 3, 5–7", or for a long list "43 rounds, the last 297"."""
    runs: list[list[int]] = []
    for made in rounds:
        if runs and made == runs[-1][-1] + 1:
            runs[-1].append(made)
        else:
            runs.append([made])
    if len(runs) > SPANS_AT_MOST:
        return f"{len(rounds)} rounds, the last {rounds[-1]}"
    short = ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"round{'s' * (len(rounds) > 1)} {short}"


def _present(absences: Sequence[int]) -> Standing:
    return Standing("takes part again", f"was missing in {spans(absences)}") if absences else Standing(TAKES_PART)


def _missing_since(absences: Sequence[int], rounds: Sequence[Mapping[str, Any]]) -> str:
    """The status of a site that is missing now, with the first round of its last absence.

    If no line has the absence yet, this is the round after the last line.
    """
    last = _number(rounds[-1]) if rounds else -1
    since = last + 1
    while since - 1 in absences:
        since -= 1
    return f"missing since round {since}" if since > 0 else "missing from the start"


def _absences(site: str, rounds: Sequence[Mapping[str, Any]]) -> list[int]:
    return [_number(line) for line in rounds if site in _told(line, "missing")]


def _number(line: Mapping[str, Any]) -> int:
    number = line.get("round")
    return number if isinstance(number, int) else 0


def _told(line: Mapping[str, Any], what: str) -> dict[str, Any]:
    found = line.get(what)
    return found if isinstance(found, dict) else {}
