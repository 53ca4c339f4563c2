"""The page docs/reference/results.md and the JSON schemas of the files of a run."""

import json
from collections.abc import Iterator
from typing import Any

from server.record.format import FORMAT, RoundLine, Summary

INTRO = f"""# Files of a run

This page lists every entry of `summary.json` and of a line of `metrics.jsonl`. It is made from the code by `make
reference`. The format has version {FORMAT}, which is the entry `format`. The version grows when an entry is removed or
changes its meaning. `fedmosaic compare` refuses files of other versions.

[summary.schema.json](summary.schema.json) and [metrics.schema.json](metrics.schema.json) are the same as JSON
schemas."""
HEADINGS = {"Summary": "summary.json", "RoundLine": "A line of metrics.jsonl"}


def files() -> dict[str, str]:
    """The text of each file by name."""
    schemas = {"summary": Summary.model_json_schema(), "metrics": RoundLine.model_json_schema()}
    known = {kind["title"]: kind for schema in schemas.values() for kind in (schema, *schema["$defs"].values())}
    order = sorted(known, key=lambda title: (title not in HEADINGS, title))
    page = "\n\n".join(
        [INTRO, *(part for title in order for part in section(HEADINGS.get(title, title), known[title]))]
    )
    texts = {f"{name}.schema.json": json.dumps(schema, indent=1) + "\n" for name, schema in schemas.items()}
    return {"results.md": f"{page}\n", **texts}


def section(heading: str, schema: dict[str, Any]) -> Iterator[str]:
    """Yield the parts of the section of one kind of object."""
    yield f"## {heading}"
    yield schema["description"]
    rows = (f"| `{name}` | {' '.join(entry.get('description', '').split())} |"
            for name, entry in schema["properties"].items())  # fmt: skip
    yield "\n".join(["| entry | meaning |", "|---|---|", *rows])
