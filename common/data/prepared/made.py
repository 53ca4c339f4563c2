"""How an encoder was made: worker processes make the same one, and names of cached files depend on it."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import common.encoders
import common.media
from common.config import plugins
from common.config.component import Reference, build
from common.encoders.base import Encoder


@dataclass(frozen=True)
class Made:
    """The encoder of an experiment.

    reference: its name and options. number: its place among the alternatives of a mixed encoder. allowed: the plugins
    that may be loaded; None: every installed one.
    """

    reference: Reference
    number: int = 0
    allowed: frozenset[plugins.Plugin] | None = field(default_factory=plugins.allowed, repr=False)

    def build(self) -> Encoder:
        """The encoder for preparing values.

        Raises ConfigError.
        """
        with plugins.only(self.allowed):
            made: Encoder = build("encoder", self.reference).preparer()
        return made.alternatives()[self.number]

    def described(self) -> str:
        """A text with everything that a prepared value depends on, except the value: the options, the files that they
        name, and the code of this project or of a plugin.

        Raises ConfigError.
        """
        with plugins.only(self.allowed), plugins.recorded() as used:
            options = build("encoder", self.reference)
        kind = f"{type(options).__module__}.{type(options).__qualname__}"
        digests = sorted(f"{plugin} {plugin.digest}" for plugin in used)
        chosen = options.model_dump_json(exclude=options.of_network)
        return json.dumps([kind, chosen, options.content(), self.number, digests, _code()])


@cache
def _code() -> str:
    """A hash of the Python files of `common.encoders` and `common.media`."""
    digest = hashlib.sha256()
    for package in (common.encoders, common.media):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()
