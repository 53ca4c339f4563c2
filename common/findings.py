"""What reading the values of a modality showed: counted, naming no example, so that it may be told to the server."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt

from common.words.printable import printable

NAMED, LONGEST = 5, 300
"""Different reasons and forms that are told, the most frequent ones, and characters of one."""
Count = Annotated[NonNegativeInt, Field(le=10**12)]
Words = Annotated[str, Field(max_length=LONGEST), AfterValidator(printable)]
Told = Annotated[dict[Words, Count], Field(max_length=NAMED)]


class Findings(BaseModel):
    """Of one modality of a shard.

    values: how many there are, readable or not. unreadable: those that the encoder could not be given; `reasons`: the
    most frequent reasons. constant: silent recordings, blank pictures, arrays of one number. conflicting: files with
    the same bytes as one of another label. forms: the most frequent kinds, e.g. "sound, 8000 Hz, 1 channel".
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    values: Count = 0
    unreadable: Count = 0
    reasons: Told = Field(default_factory=dict)
    constant: Count = 0
    conflicting: Count = 0
    forms: Told = Field(default_factory=dict)

    @property
    def share_unreadable(self) -> float:
        """Of all values, from 0 to 1."""
        return self.unreadable / self.values if self.values else 0.0


def too_many_unreadable(findings: Mapping[str, Findings], most: float) -> str | None:
    """Why a shard is refused of which more than a share of a modality cannot be read; None where it is not."""
    bad = [unreadable_in_words(m, found) for m, found in sorted(findings.items()) if found.share_unreadable > most]
    return f"{'; '.join(bad)} (data.max_unreadable is {most:g})" if bad else None


def unreadable_in_words(modality: str, findings: Findings) -> str:
    """How many values of a modality cannot be read, their share, and the most frequent reasons."""
    reasons = "; ".join(f"{count} x {why}" for why, count in findings.reasons.items())
    share = f"{findings.unreadable} of {findings.values} {modality} values ({findings.share_unreadable:.0%})"
    return f"{share} cannot be read: {reasons}"
