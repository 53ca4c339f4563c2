"""birds-public: drawn birds with captions, of other species than those of birds-mini. The class is the kind of bird.

The data set is a public pool for retrieval. The program that draws birds-mini (`common/datasets/birds`) draws it too.
The frozen models that come with the project were trained on other birds of this sort.
"""

from typing import ClassVar

from pydantic import Field

from common.data.shard import Example, Media
from common.datasets.base import DataSet
from common.datasets.birds.captions import caption
from common.datasets.birds.drawing import picture, random_scene
from common.datasets.birds.species import KINDS, WORLD, public_bird
from common.media.values import encode_image
from common.seeding import rng

TEST_SHARE = 0.1


class BirdsPublic(DataSet):
    """Birds of other species than those of birds-mini."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    licence: ClassVar[str] = "Apache-2.0"

    size: int = Field(3000, ge=10)
    """Birds in the training part. The test part has a tenth as many additional birds."""

    @property
    def classes(self) -> list[str]:
        """The kinds."""
        return sorted(KINDS)

    def examples(self, part: str, seed: int) -> list[Example]:
        """The examples of a part. They have no natural groups and do not depend on the seed."""
        count = self.size if part == "train" else round(TEST_SHARE * self.size)
        return [_example(f"{part}-{number}") for number in range(count)]


def _example(name: str) -> Example:
    draw = rng(WORLD, "pool", name)
    bird, scene = public_bird(draw), random_scene(draw)
    text = caption(bird, scene, draw)
    image = Media(lambda: encode_image(picture(bird, scene)), ".png")
    return Example(name, bird.kind, {"image": image, "text": Media.text(text)})
