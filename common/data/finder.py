"""Collects findings about the values of a modality."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence, Set
from typing import TypeVar

from common.data.observation import Observation, no_notes, observe
from common.data.shard import Record
from common.findings import LONGEST, NAMED, Findings
from common.media.values import Raw, Value

log = logging.getLogger(__name__)
T = TypeVar("T")


class Finder:
    """Takes the values of one modality, one after the other, and collects findings about them.

    broken: by example id, the reason why its value is unreadable. low, high: the smallest and largest number in all
    values; infinite without values. notes: the number of values by finding of the encoder.
    """

    def __init__(self, modality: str) -> None:
        self.broken: dict[str, str] = {}
        self.low, self.high = math.inf, -math.inf
        self.forms, self.notes = Counter[str](), Counter[str]()
        self._modality = modality
        self._values = self._constant = 0
        self._owners: dict[bytes, list[Record]] = {}

    def take(
        self,
        record: Record,
        value: Value,
        prepare: Callable[[Raw], T],
        note: Callable[[Raw], Sequence[str]] = no_notes,
    ) -> T | None:
        """The result of `prepare` for a value. An unreadable value is logged and gives None."""
        prepared, seen = observe(value, prepare, note)
        self.note(record, seen)
        return prepared

    def note(self, record: Record, seen: Observation) -> None:
        """Add the observation of a value, which another process may have made. An unreadable value is logged."""
        self._values += 1
        if seen.reason:
            log.warning("%s of example %s is treated as missing: %s", self._modality, record.id, seen.said)
            self.broken[record.id] = seen.reason
            return
        self.low, self.high = min(self.low, seen.low), max(self.high, seen.high)
        self._constant += seen.constant
        self.forms[seen.form] += 1
        self.notes.update(seen.notes)
        if seen.digest:
            self._owners.setdefault(seen.digest, []).append(record)

    @property
    def digests(self) -> Set[bytes]:
        """The digests of the readable files, except texts."""
        return self._owners.keys()

    def conflicts(self) -> list[list[Record]]:
        """Groups of examples whose files have the same bytes and whose labels differ."""
        return [same for same in self._owners.values() if len({record.label for record in same}) > 1]

    def found(self) -> Findings:
        """The findings, which may be sent to the server."""
        return Findings(
            values=self._values,
            unreadable=len(self.broken),
            reasons=dict(Counter(self.broken.values()).most_common(NAMED)),
            constant=self._constant,
            conflicting=sum(map(len, self.conflicts())),
            forms={form[:LONGEST]: count for form, count in self.forms.most_common(NAMED)},
            notes={note[:LONGEST]: count for note, count in self.notes.most_common(NAMED)},
        )
