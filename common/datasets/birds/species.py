"""The traits of a bird, the species of birds-mini, and the birds of the public corpus, which are of other species."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from common.seeding import rng

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "white", "grey")
KINDS = ("finch", "heron", "hawk", "duck", "swift", "owl", "dove", "kingfisher")
"""Kinds have different shapes: body, neck, legs, head."""
TRAITS: Mapping[str, tuple[str, ...]] = {
    "crown": COLOURS,
    "back": COLOURS,
    "wing": COLOURS,
    "breast": COLOURS,
    "bill": ("yellow", "black", "red", "grey"),
    "bill_shape": ("conical", "long", "hooked", "flat"),
    "wing_pattern": ("plain", "barred", "spotted", "edged"),
    "breast_pattern": ("plain", "streaked", "spotted", "banded"),
    "tail": ("short", "long", "forked", "fanned"),
    "crest": ("none", "crested"),
    "eye": ("plain", "ringed"),
}
SPECIES_PER_KIND = 6
CHANGED = 4
"""Number of traits in which a species differs from the model of its kind."""
APART = 3
"""Minimum number of traits in which a public bird differs from every species of the same kind."""
WORLD = 20_261
"""The fixed seed for species and scenes. birds-mini is one data set; no option of an experiment changes its species."""
PLUMAGE = ("crown", "back", "wing", "breast")
NAMED = 3
"""Number of colours of the plumage in a name."""
SYLLABLES = ("ka", "lo", "mi", "ra", "tu", "ve", "zo", "ni", "sha", "be", "dor", "quil", "fen", "gar", "wis")


@dataclass(frozen=True)
class Bird:
    """A kind and a value for every trait. name: the name of the species; "" for a bird of the public corpus."""

    kind: str
    traits: Mapping[str, str]
    name: str = ""


@cache
def species() -> tuple[Bird, ...]:
    """The classes of birds-mini: six species of each kind.

    The species of a kind are similar: each one differs from the model of the kind in four of eleven traits. A name
    contains the kind and, like the names of real birds, a part of the appearance: three traits.
    """
    found: list[Bird] = []
    for kind in KINDS:
        draw = rng(WORLD, "species", kind)
        model = random_bird(kind, draw)
        while len(found) < SPECIES_PER_KIND * (KINDS.index(kind) + 1):
            bird = _variation(model, draw)
            if all(distance(bird, other) >= APART for other in found):
                name = _name(bird, [other.name for other in found], rng(WORLD, "name", len(found)))
                found.append(Bird(kind, bird.traits, name))
    return tuple(found)


def random_bird(kind: str, draw: np.random.Generator) -> Bird:
    """A bird whose traits are drawn independently."""
    return Bird(kind, {trait: str(draw.choice(values)) for trait, values in TRAITS.items()})


def public_bird(draw: np.random.Generator) -> Bird:
    """A bird that is not in birds-mini. It differs from every species of its kind in at least `APART` traits."""
    while True:
        bird = random_bird(str(draw.choice(KINDS)), draw)
        if all(distance(bird, other) >= APART for other in species()):
            return bird


def distance(one: Bird, other: Bird) -> int:
    """The number of traits that differ. Birds of two kinds differ in all traits."""
    if one.kind != other.kind:
        return len(TRAITS)
    return sum(one.traits[trait] != other.traits[trait] for trait in TRAITS)


def _variation(model: Bird, draw: np.random.Generator) -> Bird:
    changed = draw.permutation(list(TRAITS))[:CHANGED]
    others = {t: [value for value in TRAITS[t] if value != model.traits[t]] for t in map(str, changed)}
    return Bird(model.kind, {**model.traits, **{t: str(draw.choice(values)) for t, values in others.items()}})


def _name(bird: Bird, taken: Collection[str], draw: np.random.Generator) -> str:
    """Three of the four colours of the plumage, e.g. "Red-crown blue-wing white-breast finch"."""
    while True:
        said = sorted(draw.permutation(len(PLUMAGE))[:NAMED].tolist())
        name = " ".join([*(f"{bird.traits[PLUMAGE[i]]}-{PLUMAGE[i]}" for i in said), bird.kind]).capitalize()
        if name not in taken:
            return name
