"""The values that frozen models generated for a shard."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.config.component import Reference
from common.data.completed import COMPLETED, RECIPE, line_value, read_lines
from common.data.shard import Shard, part
from common.errors import ShardError
from common.modality import Modality


@dataclass(frozen=True)
class Generated:
    """The values of one modality by one completer. values: texts or files, by example id. rejected, failed: numbers of
    examples without a value."""

    modality: Modality
    completer: Reference
    values: Mapping[str, str | Path]
    rejected: int
    failed: int

    @property
    def model(self) -> str:
        """The completer's name and the name of its model, if it has one."""
        return " ".join(str(self.completer[key]) for key in ("name", "model") if key in self.completer)


def read_generated(shard: Shard) -> list[Generated]:
    """The content of a shard's folder of generated values.

    Raises ShardError when it does not have the form that `fedmosaic complete` writes.
    """
    recipes = sorted(part(shard.folder, COMPLETED).glob(f"*/{RECIPE}"))
    return [_read(shard, part(shard.folder, f"{COMPLETED}/{recipe.parent.name}")) for recipe in recipes]


def _read(shard: Shard, folder: Path) -> Generated:
    known = {record.id for record in shard.records}
    lines = {name: line for name, line in read_lines(folder).items() if name in known}
    values = {name: line_value(folder, line) for name, line in lines.items()}
    rejected, failed = (sum(key in line for line in lines.values()) for key in ("rejected", "failed"))
    made = {name: value for name, value in values.items() if value is not None}
    return Generated(folder.name.rpartition("-")[0], _recipe(folder), made, rejected, failed)


def _recipe(folder: Path) -> Reference:
    path = part(folder, RECIPE)
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} cannot be read: {error}") from None
    if not isinstance(recipe, dict):
        raise ShardError(f"{path} is not a mapping")
    return recipe
