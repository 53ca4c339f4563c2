"""trio-digits: av-digits with a third modality, the digit's number word in one of several languages."""

import string
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from common.data.shard import Example, Media
from common.datasets.av_digits import AvDigits
from common.seeding import rng

WORDS = {
    "Dutch": ["nul", "een", "twee", "drie", "vier", "vijf", "zes", "zeven", "acht", "negen"],
    "English": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    "German": ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"],
    "Italian": ["zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"],
    "Spanish": ["cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"],
}
"""The words for 0 to 9. No word means two different digits."""


class TrioDigits(AvDigits):
    """av-digits with the number word as a third modality."""

    modalities: ClassVar[tuple[str, ...]] = ("audio", "image", "text")
    licence: ClassVar[str] = f"{AvDigits.licence}; words Apache-2.0"

    text_noise: float = Field(0.0, ge=0, le=1)
    """Probability that a letter of the word is replaced by a letter drawn from a to z. At 1, the text contains only the
    length of the word."""

    def examples(self, part: str, seed: int) -> list[Example]:
        """The examples of av-digits with a number word. An example does not contain the language of its word."""
        return [
            replace(example, media={**example.media, "text": Media.text(self._word(example, seed))})
            for example in super().examples(part, seed)
        ]

    def _word(self, example: Example, seed: int) -> str:
        chance = rng(seed, "text", example.id)
        word = WORDS[sorted(WORDS)[chance.integers(len(WORDS))]][int(str(example.label))]
        replaced = chance.random(len(word)) < self.text_noise
        letters = chance.integers(len(string.ascii_lowercase), size=len(word))
        return "".join(
            string.ascii_lowercase[letter] if gone else own
            for own, gone, letter in zip(word, replaced, letters, strict=True)
        )
