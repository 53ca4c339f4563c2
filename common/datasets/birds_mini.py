"""birds-mini: drawn birds of 48 species with captions; needs no network and no files.

Everything is made by a program (`common/datasets/birds`): pictures of 64 x 64 pixels, in many poses, lights and places,
and one caption each that names three to five of eleven traits. Species of a kind are alike. The frozen models that come
with the project were trained on birds from the same program, none of them of these species.
"""

from typing import ClassVar

from pydantic import Field

from common.data.shard import Example, Media
from common.datasets.base import DataSet
from common.datasets.birds.captions import caption
from common.datasets.birds.drawing import hidden, picture, random_scene
from common.datasets.birds.species import WORLD, Bird, species
from common.media.values import encode_image
from common.seeding import rng


class BirdsMini(DataSet):
    """The first examples of a species are the same whatever their number."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    licence: ClassVar[str] = "Apache-2.0"

    train_per_class: int = Field(30, ge=1)
    """Training examples of a species."""
    test_per_class: int = Field(10, ge=1)
    """Test examples of a species."""
    foliage: int = Field(0, ge=0)
    """Leaves that hide the bird, besides the few of every picture; with many of them a picture shows some of the
    traits, as a caption names some."""

    @property
    def classes(self) -> list[str]:
        """The names of the species."""
        return sorted(bird.name for bird in species())

    @property
    def kinds(self) -> dict[str, str]:
        """Finch, heron, ..."""
        return {bird.name: bird.kind for bird in species()}

    def examples(self, part: str, seed: int) -> list[Example]:
        """The examples of a part; there are no natural groups, and the seed changes nothing."""
        count = self.train_per_class if part == "train" else self.test_per_class
        return [self._example(part, bird, number) for bird in species() for number in range(count)]

    def _example(self, part: str, bird: Bird, number: int) -> Example:
        name = f"{part}-{bird.name.replace(' ', '-').lower()}-{number}"
        draw = rng(WORLD, part, bird.name, number)
        seen = random_scene(draw)
        text = caption(bird, seen, draw)
        scene = hidden(seen, self.foliage, rng(WORLD, "foliage", name))
        return Example(
            name,
            bird.name,
            {"image": Media(lambda: encode_image(picture(bird, scene)), ".png"), "text": Media.text(text)},
        )
