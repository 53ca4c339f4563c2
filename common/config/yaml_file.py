"""Reads YAML files that people write. The result is a mapping, or an error with the reason."""

from pathlib import Path
from typing import Any

import yaml

from common.errors import ConfigError

LARGEST = 1 << 20
"""The maximum size of a file in bytes."""
MOST_VALUES = 100_000
"""The maximum number of values in a file, with aliases expanded. A few lines with aliases can expand to more values
than fit into memory."""


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that contains a key twice, because a person may read the first value while YAML uses the
    last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Raises ConstructorError, which is a YAMLError."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is used twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping in a file. what: the message when the file contains something other than a mapping.

    Raises ConfigError.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    return parse_yaml(data, str(path), what)


def parse_yaml(data: bytes, source: str, what: str) -> dict[str, Any]:
    """The mapping in the bytes of a YAML file.

    Raises ConfigError.
    """
    if len(data) > LARGEST:
        raise ConfigError(source, [f"cannot be read: it is larger than {LARGEST >> 20} MiB"])
    try:
        raw = yaml.load(data.decode("utf-8"), _Loader)
    except UnicodeDecodeError:
        raise ConfigError(source, ["cannot be read: it is not UTF-8 text"]) from None
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError) as error:
        # ValueError: a date such as the 31st of February
        # AttributeError: a value that is not a time but has the tag of a time
        raise ConfigError(source, [f"not YAML: {' '.join(str(error).split())}"]) from None
    except RecursionError:
        raise ConfigError(source, ["not YAML: it is nested too deeply"]) from None
    if not isinstance(raw, dict):
        raise ConfigError(source, [what])
    if _too_many(raw):
        raise ConfigError(source, [f"it has more than {MOST_VALUES} values, with aliases expanded"])
    return raw


def _too_many(raw: object) -> bool:
    """Whether there are more than MOST_VALUES values, e.g. because an alias refers to a mapping that contains it."""
    waiting, count = [raw], 0
    while waiting:
        value = waiting.pop()
        below = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        count += len(below)
        if count > MOST_VALUES:
            return True
        waiting += below
    return False
