"""Describes the answer to a message, for the node's log. These texts never leave the site."""

import json
from typing import Any

from flwr.app import RecordDict

from common.words.printable import of_others
from common.words.units import human

LONGEST = 100
"""The maximum number of characters of a server's text in a line."""


def in_words(asked: RecordDict, reply: RecordDict, seconds: float) -> str:
    """A line about a message, its answer and the time in seconds that the answer took."""
    wanted, said = _body(asked), _body(reply)
    experiment = _experiment(wanted)
    told = (experiment.get("name", "?"), experiment.get("federation", {}).get("rounds", "?"), wanted.get("round"))
    name, rounds, number = (one if one is None else of_others(str(one), LONGEST) for one in told)
    what = f"round {number} of {rounds}" if number else f"a run of {name} begins"
    if "error" in said:
        return f"{what}: refused: {said['error']}"
    if "tables" in said:
        return f"{what}: described its tables as {said.get('site', '?')}: {', '.join(said['tables']) or 'it has none'}"
    if number is None:
        holds = "+".join(said.get("modalities", []))
        return f"{what}: introduced as {said.get('site', '?')}, {said.get('num_examples', '?')} examples, {holds}"
    losses = ", ".join(f"{term} {value:.3g}" for term, value in said.get("losses", {}).items())
    facts = [said.get("device", ""), f"{said.get('num_examples', '?')} examples", f"loss {losses}" if losses else "",
             f"received {human(_size(asked))}, sent {human(_size(reply))}", f"{seconds:.1f} s"]  # fmt: skip
    end = "; the run has ended for this site" if number == rounds else ""
    return f"{what}: {', '.join(filter(None, facts))}{end}"


def _body(content: RecordDict) -> dict[str, Any]:
    for part in content.config_records.values():
        try:
            found = json.loads(str(part.get("json")))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}
    return {}


def _experiment(wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(wanted["experiment"])
        return found if isinstance(found, dict) and isinstance(found.get("federation"), dict) else {}
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}


def _size(content: RecordDict) -> int:
    return sum(len(array.data) for part in content.array_records.values() for array in part.values())
