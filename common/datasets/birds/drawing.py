"""Draws pictures of birds, 64 x 64 pixels: a bird in many poses, lights and places, sometimes behind leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from common.datasets.birds.species import Bird

SIZE = 64
FINE = 3
"""The factor by which a picture is drawn larger. It is reduced afterwards, which gives smooth edges."""
RGB: Mapping[str, tuple[int, int, int]] = {
    "red": (200, 40, 35),
    "orange": (235, 130, 30),
    "yellow": (240, 210, 50),
    "green": (70, 140, 50),
    "blue": (50, 90, 200),
    "purple": (130, 60, 160),
    "brown": (120, 75, 40),
    "black": (30, 30, 32),
    "white": (240, 240, 235),
    "grey": (140, 142, 145),
}
PLACES: Mapping[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "sky": ((150, 190, 230), (215, 225, 235)),
    "leaves": ((90, 130, 70), (50, 85, 45)),
    "water": ((110, 150, 170), (60, 95, 130)),
    "sand": ((215, 190, 140), (180, 150, 105)),
    "dusk": ((120, 85, 105), (220, 150, 110)),
}
"""The colours of the background, at the top and at the bottom."""


@dataclass(frozen=True)
class Shape:
    """Proportions of a kind, in units of the body's length: its height, the neck, the head's radius, the legs."""

    height: float
    neck: float
    head: float
    legs: float


SHAPE: Mapping[str, Shape] = {
    "finch": Shape(0.62, 0.02, 0.25, 0.22),
    "heron": Shape(0.46, 0.42, 0.17, 0.60),
    "hawk": Shape(0.58, 0.08, 0.21, 0.25),
    "duck": Shape(0.50, 0.20, 0.22, 0.10),
    "swift": Shape(0.38, 0.00, 0.20, 0.06),
    "owl": Shape(0.78, 0.00, 0.36, 0.16),
    "dove": Shape(0.56, 0.12, 0.18, 0.20),
    "kingfisher": Shape(0.55, 0.02, 0.30, 0.12),
}
Point = tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """Everything in a picture that does not depend on the bird's species.

    left: whether the bird faces left. angle: in degrees. centre, length: position and length of the body, as a fraction
    of the picture's side. light: factors for red, green and blue. leaves: (x, y, radius) of the leaves in front of the
    bird. noise: standard deviation of the pixels, as a fraction of 255.
    """

    place: str
    left: bool
    angle: float
    centre: Point
    length: float
    light: tuple[float, float, float]
    leaves: tuple[tuple[float, float, float], ...]
    noise: float
    seed: int


def random_scene(draw: np.random.Generator) -> Scene:
    """A random scene."""
    brightness, warmth = draw.uniform(0.55, 1.15), draw.uniform(-0.15, 0.15)
    leaves = tuple(
        (float(draw.uniform(0.15, 0.85)), float(draw.uniform(0.2, 0.8)), float(draw.uniform(0.05, 0.13)))
        for _ in range(draw.integers(0, 4))
    )
    return Scene(
        place=str(draw.choice(list(PLACES))),
        left=bool(draw.random() < 0.5),
        angle=float(draw.uniform(-22, 22)),
        centre=(float(draw.uniform(0.42, 0.58)), float(draw.uniform(0.44, 0.58))),
        length=float(draw.uniform(0.42, 0.56)),
        light=(brightness * (1 + warmth), brightness, brightness * (1 - warmth)),
        leaves=leaves,
        noise=float(draw.uniform(0.0, 0.04)),
        seed=int(draw.integers(2**31)),
    )


def hidden(scene: Scene, leaves: int, draw: np.random.Generator) -> Scene:
    """The scene with `leaves` additional leaves, which are larger and near the bird."""
    x, y = scene.centre
    more = tuple(
        (float(draw.normal(x, 0.16)), float(draw.normal(y - 0.03, 0.12)), float(draw.uniform(0.08, 0.15)))
        for _ in range(leaves)
    )
    return replace(scene, leaves=scene.leaves + more)


def picture(bird: Bird, scene: Scene) -> NDArray[np.uint8]:
    """The pixels [64, 64, 3] of a picture."""
    draw = np.random.default_rng(scene.seed)
    image = _background(scene)
    layer = Image.new("RGBA", image.size)
    _Drawing(bird, scene, layer, draw).all()
    layer = layer.rotate(scene.angle, Image.Resampling.BILINEAR, center=_scaled(scene.centre))
    image.paste(layer, mask=layer)
    pen = ImageDraw.Draw(image)
    for x, y, radius in scene.leaves:
        shade = int(draw.integers(40, 90))
        pen.ellipse(_box(x, y, radius, radius * 0.6), fill=(shade // 2, shade + 30, shade // 2))
    small = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float64)
    lit = small * np.asarray(scene.light) + draw.normal(0, scene.noise * 255, small.shape)
    pixels: NDArray[np.uint8] = np.clip(np.rint(lit), 0, 255).astype(np.uint8)
    return pixels


def _background(scene: Scene) -> Image.Image:
    top, bottom = np.asarray(PLACES[scene.place])
    rows = np.linspace(0, 1, SIZE * FINE)[:, None, None]
    pixels = np.broadcast_to(top * (1 - rows) + bottom * rows, (SIZE * FINE, SIZE * FINE, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def _scaled(point: Point) -> Point:
    return point[0] * SIZE * FINE, point[1] * SIZE * FINE


def _box(x: float, y: float, rx: float, ry: float) -> tuple[float, float, float, float]:
    side = SIZE * FINE
    return (x - rx) * side, (y - ry) * side, (x + rx) * side, (y + ry) * side


class _Drawing:
    """Draws one bird. Coordinates are relative to the body, in units of its length; x points towards the head."""

    def __init__(self, bird: Bird, scene: Scene, layer: Image.Image, draw: np.random.Generator) -> None:
        self.traits, self.scene, self.draw = bird.traits, scene, draw
        self.shape = SHAPE[bird.kind]
        self.pen = ImageDraw.Draw(layer)
        self.head: Point = (0.42 + 0.35 * self.shape.neck, -0.22 - 0.9 * self.shape.neck - 0.15 * self.shape.height)

    def all(self) -> None:
        """Draw every part, from back to front."""
        self._legs()
        self._tail()
        self._body()
        self._wing()
        self._neck_and_head()
        self._bill()
        self._eye()

    def _colour(self, name: str) -> tuple[int, int, int]:
        """The colour with a small random change for this bird."""
        red, green, blue = (int(np.clip(value + self.draw.normal(0, 10), 0, 255)) for value in RGB[name])
        return red, green, blue

    def _at(self, x: float, y: float) -> Point:
        side = -1 if self.scene.left else 1
        cx, cy = self.scene.centre
        return _scaled((cx + side * x * self.scene.length, cy + y * self.scene.length))

    def _ellipse(self, x: float, y: float, rx: float, ry: float, fill: tuple[int, int, int]) -> None:
        px, py = self._at(x, y)
        sx, sy = _scaled((rx * self.scene.length, ry * self.scene.length))
        self.pen.ellipse((px - sx, py - sy, px + sx, py + sy), fill=fill)

    def _polygon(self, points: Sequence[Point], fill: tuple[int, int, int]) -> None:
        self.pen.polygon([self._at(*point) for point in points], fill=fill)

    def _line(self, start: Point, end: Point, width: float, fill: tuple[int, int, int]) -> None:
        thick = max(1, round(width * self.scene.length * SIZE * FINE))
        self.pen.line([self._at(*start), self._at(*end)], fill=fill, width=thick)

    def _legs(self) -> None:
        for x in (0.02, 0.14):
            self._line((x, 0.2), (x + 0.03, 0.5 * self.shape.height + self.shape.legs), 0.04, (90, 80, 60))

    def _tail(self) -> None:
        fill = self._colour(self.traits["back"])
        root_top, root_bottom = (-0.40, -0.10), (-0.40, 0.08)
        tips: Mapping[str, Sequence[Point]] = {
            "short": [(-0.62, -0.02), (-0.62, 0.10)],
            "long": [(-1.05, 0.08), (-1.05, 0.18)],
            "forked": [(-0.95, -0.14), (-0.62, 0.04), (-0.95, 0.22)],
            "fanned": [(-0.78, -0.28), (-0.86, 0.02), (-0.78, 0.30)],
        }
        self._polygon([root_top, *tips[self.traits["tail"]], root_bottom], fill)

    def _body(self) -> None:
        height = self.shape.height / 2
        self._ellipse(0, 0, 0.5, height, self._colour(self.traits["back"]))
        breast = self._colour(self.traits["breast"])
        self._ellipse(0.14, height * 0.32, 0.36, height * 0.66, breast)
        self._breast_pattern(height, _contrast(breast))

    def _breast_pattern(self, height: float, fill: tuple[int, int, int]) -> None:
        pattern = self.traits["breast_pattern"]
        if pattern == "streaked":
            for x in (0.02, 0.14, 0.26, 0.38):
                self._line((x, height * 0.15), (x - 0.03, height * 0.8), 0.035, fill)
        elif pattern == "spotted":
            for x, y in ((0.0, 0.7), (0.12, 0.35), (0.16, 0.8), (0.27, 0.55), (0.38, 0.25), (0.36, 0.72)):
                self._ellipse(x, height * y, 0.03, 0.03, fill)
        elif pattern == "banded":
            self._line((0.40, -height * 0.05), (0.16, height * 0.85), 0.09, fill)

    def _wing(self) -> None:
        fill = self._colour(self.traits["wing"])
        mark, y = _contrast(fill), -0.10 * self.shape.height
        self._polygon(
            [(0.22, y - 0.14), (0.26, y + 0.06), (-0.10, y + 0.20), (-0.58, y + 0.04), (-0.2, y - 0.14)], fill
        )
        pattern = self.traits["wing_pattern"]
        if pattern == "barred":
            for x in (0.08, -0.10):
                self._line((x, y - 0.12), (x - 0.06, y + 0.15), 0.05, mark)
        elif pattern == "spotted":
            for x, dy in ((0.12, 0.0), (-0.02, 0.06), (-0.04, -0.07), (-0.18, 0.02), (-0.32, 0.03)):
                self._ellipse(x, y + dy, 0.032, 0.032, mark)
        elif pattern == "edged":
            self._line((0.26, y + 0.06), (-0.10, y + 0.20), 0.05, mark)
            self._line((-0.10, y + 0.20), (-0.58, y + 0.04), 0.05, mark)

    def _neck_and_head(self) -> None:
        back, crown = self._colour(self.traits["back"]), self._colour(self.traits["crown"])
        x, y = self.head
        radius = self.shape.head
        if self.shape.neck > 0:
            self._line((0.34, 0.0), (x, y), 0.17, back)
        self._ellipse(x, y, radius, radius, back)
        if self.traits["crest"] == "crested":
            self._polygon([(x + radius * 0.4, y - radius * 0.8), (x - radius * 1.5, y - radius * 1.7),
                           (x - radius * 0.8, y - radius * 0.4)], crown)  # fmt: skip
        px, py = self._at(x, y)
        rx, ry = _scaled((radius * self.scene.length, radius * self.scene.length))
        self.pen.chord((px - rx, py - ry, px + rx, py + ry), 195, 345, fill=crown)

    def _bill(self) -> None:
        fill = self._colour(self.traits["bill"])
        radius, (x, y) = self.shape.head, self.head
        base, y = x + radius * 0.85, y + radius * 0.15
        shapes: Mapping[str, Sequence[Point]] = {
            "conical": [(base, y - 0.10), (base + 0.17, y + 0.02), (base, y + 0.10)],
            "long": [(base, y - 0.05), (base + 0.48, y + 0.03), (base, y + 0.05)],
            "hooked": [(base, y - 0.09), (base + 0.20, y - 0.05), (base + 0.22, y + 0.16), (base + 0.13, y + 0.05),
                       (base, y + 0.07)],
            "flat": [(base, y - 0.05), (base + 0.30, y - 0.03), (base + 0.32, y + 0.08), (base, y + 0.08)],
        }  # fmt: skip
        self._polygon(shapes[self.traits["bill_shape"]], fill)

    def _eye(self) -> None:
        x, y = self.head[0] + self.shape.head * 0.35, self.head[1] - self.shape.head * 0.05
        if self.traits["eye"] == "ringed":
            self._ellipse(x, y, 0.085, 0.085, (245, 240, 225))
        self._ellipse(x, y, 0.05, 0.05, (15, 15, 15))


def _contrast(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """The colour of marks on a background: dark on light, light on dark."""
    return (40, 35, 30) if sum(colour) > 330 else (235, 230, 215)
