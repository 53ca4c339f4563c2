"""An experiment for given shards. The content of the shards determines the encoders and their sizes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.observation import is_frames
from common.data.shard import Record, Shard
from common.data.sites import site_folders
from common.encoders.text import tokens
from common.errors import ShardError
from common.media.series import Series
from common.media.sounds import Sound
from common.media.table_row import TableRow
from common.media.values import Raw
from common.modality import Modality
from deploy.shards.classes import unlike_classes
from deploy.shards.inspection.labels import targets_seen, task_line
from deploy.shards.inspection.survey import sampled, survey

LOOKED_AT = 300
"""The maximum number of examples that are read from a shard."""
MOST_OF = 95
"""The percentage of the values that fit without cutting."""
FASTEST = 16_000
"""Highest sampling rate of recordings after resampling, in Hz."""
WINDOW_SECONDS = 0.032
LARGEST, SMALLEST = 64, 16
"""Largest and smallest size of images after resizing, in pixels per side."""
LONGEST_TEXT, MOST_FRAMES = 256, 8
TEMPLATE = """\
# `fedmosaic init --shards` made this experiment for the shards in {folder}.
# All other options have their defaults. `fedmosaic init` without --shards writes a file that explains all options.
# This is a starting point: try other learning rates on your own data.
name: {name}
seed: 1
{task}data:
  clients: {clients:<14} # number of shards found
model:
  encoders:
{encoders}
method: fedavg-heads       # one loss on all modalities together, and one on each modality alone
train: {{optimizer: adamw, lr: {lr}, epochs: {epochs}, batch_size: {batch_size}}}
federation: {{rounds: {rounds}}}
"""
LR, EPOCHS, BATCH_SIZE, ROUNDS = 0.002, 2, 32, 15
"""Training works with these values on all six data sets in docs/how-to/data-sets.md, which has the figures."""


@dataclass
class Seen:
    """Properties of the values of one modality. Each list has one entry per value."""

    rates: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sides: list[int] = field(default_factory=list)
    coloured: list[bool] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)

    def add(self, raw: Raw) -> None:
        """Note a value."""
        if isinstance(raw, Series):
            raw = raw.values
        if isinstance(raw, Sound):
            self.rates.append(raw.rate)
            self.seconds.append(len(raw.samples) / raw.rate)
        elif isinstance(raw, Image.Image):
            self.sides.append(max(raw.size))
            self.coloured.append(raw.mode != "L")
        elif isinstance(raw, str):
            self.words.append(len(tokens(raw, None)))
        elif isinstance(raw, TableRow):
            self.cells.append(len(raw.cells))
        elif is_frames(raw):
            self.frames.append(len(raw))
            self.sides.append(max(raw.shape[1:3]))
        elif raw.ndim in (1, 2):
            self.lengths.append(len(raw))
            self.channels.append(1 if raw.ndim == 1 else raw.shape[1])
            self.sizes.append(float(np.abs(raw).mean()))

    def encoder(self) -> tuple[str, str]:
        """The encoder as YAML, and the reason for its options.

        Raises ValueError when there is no encoder for such values.
        """
        kinds = [name for name, seen in (("recordings", self.rates), ("frames", self.frames), ("texts", self.words),
                                         ("signals", self.lengths), ("pictures", self.coloured),
                                         ("rows", self.cells)) if seen]  # fmt: skip
        if len(kinds) != 1:
            raise ValueError(f"{' and '.join(kinds)} together" if kinds else "a modality without readable values")
        made: tuple[str, str] = getattr(self, f"_{kinds[0]}")()
        return made

    def _recordings(self) -> tuple[str, str]:
        counts = Counter(self.rates)
        lowest = min(rate for rate, count in counts.items() if 100 * count >= (100 - MOST_OF) * len(self.rates))
        rate = min(FASTEST, lowest)
        seconds = max(0.1, round(_most(self.seconds) + 0.049, 1))
        window = 2 ** round(np.log2(rate * WINDOW_SECONDS))
        known = f"{lowest} Hz" if len(counts) == 1 else f"{lowest} Hz is the lowest rate of many values"
        why = f"{known}, {MOST_OF} % last up to {_most(self.seconds):.2g} s"
        sizes = f"n_fft: {window}, hop: {window // 2}, n_mels: 40"
        return f"{{name: spectrogram, rate: {rate}, seconds: {seconds}, {sizes}}}", why

    def _pictures(self) -> tuple[str, str]:
        channels = 3 if np.mean(self.coloured) > 0.5 else 1
        return f"{{name: image, size: {self._side()}, channels: {channels}}}", self._sides_in_words(channels)

    def _frames(self) -> tuple[str, str]:
        frames = min(MOST_FRAMES, int(np.median(self.frames)))
        why = f"{self._sides_in_words(3)}, median {np.median(self.frames):.0f} frames"
        return f"{{name: frames, frames: {frames}, size: {self._side()}, longer: spread}}", why

    def _texts(self) -> tuple[str, str]:
        length = int(min(LONGEST_TEXT, max(8, _most(self.words))))
        return f"{{name: text, length: {length}}}", f"{MOST_OF} % have up to {_most(self.words):.0f} words"

    def _signals(self) -> tuple[str, str]:
        length, channels = _usual(self.lengths), _usual(self.channels)
        scale = float(f"{max(np.mean(self.sizes), 1e-6):.2g}")
        same = all(one == length for one in self.lengths)
        length = length if same else max(8, int(_most(self.lengths)))
        rule = "" if same else f", other_lengths: mask, windows: {-(-max(self.lengths) // length)}"
        why = f"{channels} channels of {length} samples, mean size {scale:g}" if same else "their lengths differ"
        return f"{{name: signal, channels: {channels}, length: {length}, scale: {scale}{rule}}}", why

    def _rows(self) -> tuple[str, str]:
        return "{name: table}", f"up to {max(self.cells)} known cells; the sites agree on the columns"

    def _side(self) -> int:
        return int(min(LARGEST, max(SMALLEST, np.median(self.sides))))

    def _sides_in_words(self, channels: int) -> str:
        colour = "in colour" if channels == 3 else "in grey"
        return f"{colour}, median {np.median(self.sides):.0f} pixels per side"


class Profile:
    """Collects properties of the values of shards while they are read."""

    def __init__(self) -> None:
        self.seen: dict[Modality, Seen] = {}

    def look(self, record: Record, values: Mapping[Modality, Raw], broken: Mapping[Modality, str]) -> None:
        """Note the readable values of an example."""
        for modality, raw in values.items():
            self.seen.setdefault(modality, Seen()).add(raw)


def find_shards(folder: Path) -> list[Shard]:
    """The shard in a folder, or the shards in its subfolders without the server's test shard and probe set.

    Raises ShardError when there are none, or when their tasks or classes differ.
    """
    if (folder / "shard.json").exists():
        return [Shard.open(folder)]
    shards = [Shard.open(path) for path in site_folders(folder)]
    if not shards:
        raise ShardError(f"{folder} is not a shard and contains no shards; fedmosaic import makes shards")
    for shard in shards:
        if shard.info.task != (task := shards[0].info.task):
            said = f"the labels of {shard.folder.name} are for task {shard.info.task}"
            raise ShardError(f"{said}, those of {shards[0].folder.name} for task {task}")
    if differ := unlike_classes(shards):
        raise ShardError("; ".join(differ))
    return shards


def fitted(shards: Sequence[Shard], name: str, folder: Path) -> str:
    """The experiment, as YAML with comments.

    Raises ShardError when no encoder of this project accepts the values of a modality.
    """
    profile = Profile()
    for shard in shards:
        survey(sampled(shard, LOOKED_AT), profile)
    lines = []
    for modality, seen in sorted(profile.seen.items()):
        try:
            encoder, why = seen.encoder()
        except ValueError as error:
            raise ShardError(f"{modality}: there is no encoder for {error}") from None
        lines.append(f"    {modality}: {encoder}  # {why}")
    return TEMPLATE.format(
        folder=folder, name=name, task=_task(shards), clients=len(shards), encoders="\n".join(lines),
        lr=LR, epochs=EPOCHS, batch_size=BATCH_SIZE, rounds=ROUNDS,
    )  # fmt: skip


def _task(shards: Sequence[Shard]) -> str:
    """The line `task`, with the means and standard deviations of all shards together; "" for single-label."""
    info = shards[0].info
    if info.task == "single-label":
        return ""
    seen = targets_seen(info, [record.label for shard in shards for record in shard.records])
    why = "mean and std of the shards together" if seen else "every example has any number of labels"
    return f"{task_line(info, seen)}  # {why}\n"


def _usual(values: Sequence[int]) -> int:
    return Counter(values).most_common(1)[0][0]


def _most(values: Sequence[float]) -> float:
    return float(np.percentile(values, MOST_OF))
