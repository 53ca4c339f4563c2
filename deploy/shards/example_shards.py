"""Small shards for trying an experiment: digits as handwriting, as speech and as words."""

from dataclasses import replace
from pathlib import Path

from common.data.shard import Example, Media, ShardInfo, ShardWriter
from common.data.sites import TEST
from common.datasets.digits_mini import DigitsMini
from common.datasets.trio_digits import WORDS
from common.seeding import rng
from common.split.make import client_name

SEED = 1
SITES = {"north": ("audio", "image", "text"), "south": ("audio", "image", "text"), "east": ("image", "text")}
"""The modalities of each site. The last site has no recordings."""
EXAMPLES = 60
"""Number of examples per site, and in the test shard."""
WORDLESS = 4
"""Every fourth example for training has no word."""


def write_example_shards(folder: Path) -> list[Path]:
    """Write client-0, client-1, client-2 and test. Returns their folders."""
    train = _drawn("train", EXAMPLES * len(SITES))
    parts = {name: train[i :: len(SITES)] for i, name in enumerate(SITES)}
    shards = [_write(folder / client_name(i), name, SITES[name], parts[name]) for i, name in enumerate(SITES)]
    return [*shards, _write(folder / TEST, TEST, ("audio", "image", "text"), _drawn(TEST, EXAMPLES))]


def _drawn(part: str, count: int) -> list[Example]:
    """`count` examples of the digits, with numbers as ids."""
    examples = DigitsMini().examples(part, SEED)
    chosen = rng(SEED, "examples", part).permutation(len(examples))[:count]
    return [_with_word(replace(examples[index], id=str(number)), part, number) for number, index in enumerate(chosen)]


def _with_word(example: Example, part: str, number: int) -> Example:
    if number % WORDLESS == 0 and part != TEST:
        return example
    languages = sorted(WORDS)
    word = WORDS[languages[rng(SEED, "word", part, number).integers(len(languages))]][int(str(example.label))]
    return replace(example, media={**example.media, "text": Media.text(word)})


def _write(folder: Path, site: str, modalities: tuple[str, ...], examples: list[Example]) -> Path:
    source = DigitsMini()
    info = ShardInfo(
        site=site,
        classes=source.classes,
        modalities=list(modalities),
        licence=f"{source.licence}; words Apache-2.0",
        made={"by": "fedmosaic init"},
    )
    held = [replace(one, media={m: one.media[m] for m in modalities if m in one.media}) for one in examples]
    ShardWriter(folder, info).write(held)
    return folder
