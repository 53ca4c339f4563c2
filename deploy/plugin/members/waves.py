"""waves: short signals of three forms, with a remark as text. The data set needs no files."""

from typing import ClassVar

import numpy as np
from pydantic import Field
from scipy.signal import sawtooth, square

from common.data.shard import Example, Media
from common.datasets.base import DataSet
from common.media.values import encode_array
from common.seeding import rng

FORMS = {"sawtooth": sawtooth, "sine": np.sin, "square": square}
REMARKS = {"sawtooth": "edgy", "sine": "smooth", "square": "edgy"}
LENGTH = 64


class Waves(DataSet):
    """The remark distinguishes a sine from the other forms, but not the other two forms from each other."""

    modalities: ClassVar[tuple[str, ...]] = ("signal", "text")
    licence: ClassVar[str] = "none: made by a program"

    per_class: int = Field(40, ge=2)
    """Examples per form. A quarter of them are the test part."""
    noise: float = Field(0.3, ge=0)
    """Standard deviation of the noise on the signal."""

    @property
    def classes(self) -> list[str]:
        """The forms."""
        return sorted(FORMS)

    def examples(self, part: str, seed: int) -> list[Example]:
        """Signals [64, 1] as .npy files, and a word. Each natural client has one instrument."""
        tested = self.per_class // 4
        numbers = range(tested) if part == "test" else range(tested, self.per_class)
        return [self._example(form, number, seed) for form in self.classes for number in numbers]

    def _example(self, form: str, number: int, seed: int) -> Example:
        draw = rng(seed, "waves", form, number)
        phase = draw.uniform(0, 2 * np.pi) + np.linspace(0, draw.uniform(4, 8) * np.pi, LENGTH)
        signal = (FORMS[form](phase) + self.noise * draw.normal(size=LENGTH)).astype(np.float32)[:, None]
        media = {"signal": Media(lambda: encode_array(signal), ".npy"), "text": Media.text(REMARKS[form])}
        return Example(f"{form}-{number}", form, media, f"instrument-{number % 5}")
