"""Generated examples: a picture of 96 x 96 pixels in colour and a text, in ten classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.config.experiment import Experiment
from common.config.reading import parse
from common.data.shard import Example, Media, ShardInfo, ShardWriter
from common.media.values import encode_image
from common.seeding import rng

SIDE = 96
CLASSES = [str(index) for index in range(10)]


def write_shard(folder: Path, count: int) -> None:
    """Write a shard with `count` examples, which are different from each other."""
    ShardWriter(folder, ShardInfo(site="bench", classes=CLASSES, modalities=["image", "text"])).write(_examples(count))


def _examples(count: int) -> Iterator[Example]:
    draw = rng(1, "bench memory")
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.NEAREST))
        media = {"image": Media(lambda pixels=pixels: encode_image(pixels), ".png")}  # type: ignore[misc]
        media["text"] = Media.text(f"a picture with the number {number} of the class {number % 10}")
        yield Example(f"example-{number}", CLASSES[number % 10], media)


def experiment() -> Experiment:
    """FedAvg with small encoders, one epoch."""
    raw: dict[str, Any] = {
        "name": "bench-memory",
        "data": {"clients": 1, "validation": 0.1},
        "model": {
            "encoders": {
                "image": {"name": "image", "size": SIDE, "channels": 3, "filters": 8, "width": 32},
                "text": {"name": "text", "width": 32},
            }
        },
        "method": "fedavg",
        "train": {"epochs": 1, "batch_size": 64, "lr": 0.01},
        "federation": {"rounds": 1},
    }
    return parse(raw, "bench memory")
