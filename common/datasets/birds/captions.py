"""Captions as people write them: a few traits of the bird and its place, with varying words."""

from collections.abc import Mapping, Sequence

import numpy as np

from common.datasets.birds.drawing import Scene
from common.datasets.birds.species import Bird

MIN_TRAITS, MAX_TRAITS = 3, 5
WORDS: Mapping[str, tuple[str, ...]] = {
    "red": ("red", "scarlet", "crimson"),
    "orange": ("orange", "amber"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "olive"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "brown": ("brown", "chestnut", "rusty"),
    "black": ("black", "dark"),
    "white": ("white", "snowy"),
    "grey": ("grey", "ashen"),
}
PHRASES: Mapping[str, tuple[str, ...]] = {
    "crown": ("a {} crown", "a {} cap", "{} feathers on top of its head"),
    "back": ("a {} back", "a {} body", "{} upperparts"),
    "wing": ("{} wings", "{} wing feathers"),
    "breast": ("a {} breast", "a {} belly", "{} underparts"),
    "bill": ("a {} bill", "a {} beak"),
}
SHAPES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "bill_shape": {
        "conical": ("a short conical bill", "a stubby beak"),
        "long": ("a long thin bill", "a needle like beak"),
        "hooked": ("a hooked bill", "a curved beak"),
        "flat": ("a flat broad bill", "a spoon like beak"),
    },
    "wing_pattern": {
        "plain": ("plain wings", "wings without marks"),
        "barred": ("wing bars", "bars across its wings"),
        "spotted": ("spotted wings", "spots on its wings"),
        "edged": ("pale wing edges", "wings with a pale edge"),
    },
    "breast_pattern": {
        "plain": ("a plain front", "an unmarked front"),
        "streaked": ("a streaked front", "streaks down its front"),
        "spotted": ("a speckled front", "dots on its front"),
        "banded": ("a band across its front", "a banded front"),
    },
    "tail": {
        "short": ("a short tail", "a stumpy tail"),
        "long": ("a long tail", "a trailing tail"),
        "forked": ("a forked tail", "a split tail"),
        "fanned": ("a fanned tail", "a wide spread tail"),
    },
    "crest": {"none": ("a smooth head", "a rounded head"), "crested": ("a crest", "a pointed crest on its head")},
    "eye": {"plain": ("dark eyes", "a plain eye"), "ringed": ("a pale eye ring", "a ring around its eye")},
}
PLACES: Mapping[str, tuple[str, ...]] = {
    "sky": ("against the sky", "under an open sky"),
    "leaves": ("in the foliage", "among green leaves"),
    "water": ("over the water", "by the lake"),
    "sand": ("on sandy ground", "in the desert"),
    "dusk": ("at dusk", "in the evening light"),
}
SUBJECTS = ("this bird", "the bird", "a bird", "this {kind}", "a {kind}", "this small bird", "the {kind} here")


def caption(bird: Bird, scene: Scene, draw: np.random.Generator) -> str:
    """One sentence about three to five of the traits, in lower case and without punctuation.

    The sentence may name a trait that is hidden in the picture, as if the author had seen the bird move.
    """
    subject = str(draw.choice(SUBJECTS)).format(kind=bird.kind)
    return f"{subject} {draw.choice(('has', 'shows', 'with'))} {description(bird, scene, draw)}"


def description(bird: Bird, scene: Scene, draw: np.random.Generator) -> str:
    """The part of a caption after "this bird has"."""
    traits = [str(trait) for trait in draw.permutation(list(bird.traits))]
    said = [phrase(trait, bird.traits[trait], draw) for trait in traits[: draw.integers(MIN_TRAITS, MAX_TRAITS + 1)]]
    place = " " + str(draw.choice(PLACES[scene.place])) if draw.random() < 0.5 else ""
    return f"{_join(said)}{place}"


def phrase(trait: str, value: str, draw: np.random.Generator) -> str:
    """A phrase for one trait."""
    if trait in SHAPES:
        return str(draw.choice(SHAPES[trait][value]))
    return str(draw.choice(PHRASES[trait])).format(draw.choice(WORDS[value]))


def _join(parts: Sequence[str]) -> str:
    return " ".join(parts[:-1]) + " and " + parts[-1]
