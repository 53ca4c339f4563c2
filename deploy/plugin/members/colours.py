"""Image -> text without a model: the name of the colour that is nearest to the mean of the picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from client.completion.base import CompleterOptions, Generator, Request
from common.media.values import Raw
from common.modality import Modality

COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255), "red": (200, 40, 40), "green": (60, 150, 60),
           "blue": (70, 120, 200), "yellow": (220, 200, 60), "brown": (120, 80, 50)}  # fmt: skip


class ColourNamer(Generator):
    """The same word for every candidate."""

    def generate(self, requests: Sequence[Request]) -> list[list[Raw]]:
        """For each request, a text of the prompt and a colour."""
        return [[f"{request.prompt} {_colour(request.source)}"] * len(request.seeds) for request in requests]


class Colours(CompleterOptions):
    """The name of the colour of a picture."""

    model: str = "colours"
    """Stored with each value to show its origin."""

    def prompt(self, label: str, kind: str, source: Raw | None) -> str:
        """A fixed beginning, because this completer does not use the class."""
        return "mostly"

    def load(self, modality: Modality, device: str) -> ColourNamer:
        """A generator, which needs no weights."""
        return ColourNamer()


def _colour(source: Raw) -> str:
    if not isinstance(source, Image.Image):
        raise ValueError(f"an image is needed, not {type(source).__name__}")
    mean = np.asarray(source.convert("RGB"), dtype=float).mean(axis=(0, 1))
    return min(COLOURS, key=lambda name: float(np.square(mean - COLOURS[name]).sum()))
