"""birds-mini: drawn birds of 48 species with captions. It needs no network and no files.

A program (`common/datasets/birds`) makes all examples: pictures of 64 x 64 pixels, in many poses, lights and places,
and one caption per picture that names three to five of eleven traits. Species of the same kind are similar. The frozen
models that come with the project were trained on birds of other species from the same program.
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
    """The first examples of a species do not depend on the number of examples."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    licence: ClassVar[str] = "Apache-2.0"

    train_per_class: int = Field(30, ge=1)
    """Training examples per species."""
    test_per_class: int = Field(10, ge=1)
    """Test examples per species."""
    foliage: int = Field(0, ge=0)
    """Additional leaves in front of the bird. With many leaves, a picture shows only some of the traits, as a caption
    names only some of them."""

    @property
    def classes(self) -> list[str]:
        """The names of the species."""
        return sorted(bird.name for bird in species())

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each species: finch, heron, ..."""
        return {bird.name: bird.kind for bird in species()}

    def examples(self, part: str, seed: int) -> list[Example]:
        """The examples of a part. They have no natural groups and do not depend on the seed."""
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
