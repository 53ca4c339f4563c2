"""Findings about the values of a modality. They are counts and name no example, so a client may send them to the
server."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt

from common.words.printable import printable

NAMED, LONGEST = 5, 300
"""How many different reasons and forms are sent (the most frequent ones), and the characters of one of them."""
Count = Annotated[NonNegativeInt, Field(le=10**12)]
Words = Annotated[str, Field(max_length=LONGEST), AfterValidator(printable)]
Told = Annotated[dict[Words, Count], Field(max_length=NAMED)]


class Findings(BaseModel):
    """The findings about one modality of a shard.

    values: number of values, readable or not. unreadable: number of values that could not be prepared for the encoder.
    reasons: the most frequent reasons for that, with their counts. constant: number of silent recordings, blank
    pictures and arrays of one number. conflicting: number of files with the same bytes as a file of another label.
    forms: the most frequent kinds of values with their counts, e.g. "sound, 8000 Hz, 1 channel". notes: the most
    frequent findings of the encoder with their counts, e.g. "column age: a number outside [0, 120], ...".
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    values: Count = 0
    unreadable: Count = 0
    reasons: Told = Field(default_factory=dict)
    constant: Count = 0
    conflicting: Count = 0
    forms: Told = Field(default_factory=dict)
    notes: Told = Field(default_factory=dict)

    @property
    def share_unreadable(self) -> float:
        """The share of unreadable values among all values, from 0 to 1."""
        return self.unreadable / self.values if self.values else 0.0


def too_many_unreadable(findings: Mapping[str, Findings], most: float) -> str | None:
    """Why a shard is refused: the modalities whose share of unreadable values is above `most`. None if there are
    none."""
    bad = [unreadable_in_words(m, found) for m, found in sorted(findings.items()) if found.share_unreadable > most]
    return f"{'; '.join(bad)} (data.max_unreadable is {most:g})" if bad else None


def unreadable_in_words(modality: str, findings: Findings) -> str:
    """The number of unreadable values of a modality, their share, and the most frequent reasons."""
    reasons = "; ".join(f"{count} x {why}" for why, count in findings.reasons.items())
    share = f"{findings.unreadable} of {findings.values} {modality} values ({findings.share_unreadable:.0%})"
    return f"{share} cannot be read: {reasons}"
