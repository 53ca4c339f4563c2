"""Finds the values that frozen models generated for the missing values of a shard.

shard/completed/image-0f3a.../
  recipe.json       the completer with all of its options
  completed.jsonl   one line per example: id, source, model, prompt, seed, score, and "file_name" or "value";
                    "rejected" or "failed" with a reason if there is no usable value
  7.png ...
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.component import Reference
from common.data.shard import Record, Shard, inside, part
from common.errors import ShardError
from common.modality import Modality

COMPLETED = "completed"
LINES = "completed.jsonl"
RECIPE = "recipe.json"
WITHOUT_EFFECT = {"batch_size"}
"""Options of a completer that do not change the generated values."""


def folder_of(shard: Shard, modality: Modality, completer: Reference) -> Path:
    """The folder for the values of a modality that this completer generates. Other options give another folder.

    Raises ShardError when a link leads out of the shard.
    """
    relevant = {key: value for key, value in completer.items() if key not in WITHOUT_EFFECT}
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:12]
    return part(shard.folder, f"{COMPLETED}/{modality}-{digest}")


def to_complete(shard: Shard, modality: Modality, source: Modality) -> list[Record]:
    """The examples that lack a modality and have the source modality."""
    return [record for record in shard.records if not record.has(modality) and record.has(source)]


def find_completed(shard: Shard, modality: Modality, completer: Reference) -> Mapping[str, str | Path]:
    """The generated values, texts or files, by example id, without rejected and failed ones.

    Raises ShardError when the shard has not been completed with these options.
    """
    folder = folder_of(shard, modality, completer)
    lines = read_lines(folder)
    wanted = to_complete(shard, modality, completer["source"])
    if lacking := [record.id for record in wanted if record.id not in lines]:
        raise ShardError(
            f"shard {shard.folder}: {len(lacking)} of {len(wanted)} missing {modality} values have not been completed "
            f"with the options of the experiment: run `fedmosaic complete {shard.folder} --with CONFIG`"
        )
    values = {record.id: line_value(folder, lines[record.id]) for record in wanted}
    return {name: value for name, value in values.items() if value is not None}


def read_lines(folder: Path) -> dict[str, dict[str, Any]]:
    """The lines of completed.jsonl by id; empty if there is no such file. An incomplete last line is left out.

    Raises ShardError when another line is not valid.
    """
    path = part(folder, LINES)
    if not path.exists():
        return {}
    try:
        *whole, _ = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{path} cannot be read: {error}") from None
    found = {}
    for number, line in enumerate(whole, start=1):
        try:
            content = json.loads(line)
            found[str(content["id"])] = content
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ShardError(f"{path}, line {number}: the line is not a JSON object with an id") from None
    return found


def line_value(folder: Path, line: Mapping[str, Any]) -> str | Path | None:
    """The generated text or file of a line; None if there is no usable value.

    Raises ShardError when the file's name leads out of the folder.
    """
    if isinstance(line.get("value"), str):
        return str(line["value"])
    if "file_name" not in line:
        return None
    try:
        return inside(folder, line["file_name"])
    except ValueError as error:
        raise ShardError(f"{folder / LINES}: {error}") from None
