"""AVE: ten-second clips of YouTube videos in which an event of one of 28 classes is both seen and heard.

Y. Tian, J. Shi, B. Li, Z. Duan, C. Xu, "Audio-Visual Event Localization in Unconstrained Videos", ECCV 2018. 4,143
annotations of 4,097 videos: 3,339 for training, 402 for validation (not used here), 402 for testing.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from common.data.shard import Example, Media
from common.datasets.base import only_in_training, read_lines
from common.datasets.shared.clips import Clips
from common.errors import DataError
from common.media.values import encode_sound
from common.media.video import read_audio, require

NAME = "ave"
SECONDS = 10
HEADER = "Category&VideoID&Quality&StartTime&EndTime"
CLASSES = [
    "Accordion", "Acoustic guitar", "Baby cry, infant cry", "Banjo", "Bark", "Bus", "Cat", "Chainsaw", "Church bell",
    "Clock", "Female speech, woman speaking", "Fixed-wing aircraft, airplane", "Flute", "Frying (food)", "Goat",
    "Helicopter", "Horse", "Male speech, man speaking", "Mandolin", "Motorcycle", "Race car, auto racing",
    "Rodents, rats, mice", "Shofar", "Toilet flush", "Train horn", "Truck", "Ukulele", "Violin, fiddle",
]  # fmt: skip
LISTS = {"train": "trainSet.txt", "test": "testSet.txt"}


@dataclass(frozen=True)
class Event:
    """A line of a list: the class and the video. The start and end of the event are not used."""

    label: str
    video: str


class Ave(Clips):
    """Ten-second clips of events that are seen and heard."""

    licence: ClassVar[str] = "clips of YouTube videos, which belong to their owners; for research (AVE)"

    folder: str
    """The folder with AVE/*.mp4, trainSet.txt and testSet.txt."""
    frames: int = Field(4, ge=1)
    """Number of frames per clip, spread evenly over the frames that ten seconds have at `fps`."""
    rate: int = Field(16000, ge=1000)
    """Sampling rate of the audio track in Hz."""

    @property
    def classes(self) -> list[str]:
        """The categories of Annotations.txt in alphabetical order."""
        return list(CLASSES)

    def examples(self, part: str, seed: int) -> list[Example]:
        """One example per line of the list: the audio track of the whole video, and frames from the video."""
        require(NAME)
        root = Path(self.folder)
        if not (root / "AVE").is_dir():
            raise DataError(f"{NAME}: no folder {root / 'AVE'} with the videos")
        lists = {which: _read_list(root / name) for which, name in LISTS.items()}
        events = lists["test"]
        if part == "train":
            events = only_in_training(NAME, lists["train"], lists["test"], lambda event: event.video)
        seen: Counter[str] = Counter()
        examples = []
        for event in events:
            seen[event.video] += 1
            examples.append(self._example(root, event, seen[event.video]))
        return examples

    def _example(self, root: Path, event: Event, turn: int) -> Example:
        """A video with several events has several lines. From its second line on, the id ends with a number."""
        path = root / "AVE" / f"{event.video}.mp4"

        def wav() -> bytes:
            return encode_sound(read_audio(path, self.rate), self.rate)

        name = event.video if turn == 1 else f"{event.video}.{turn}"
        return Example(name, event.label, {"audio": Media(wav, ".wav"), "video": self.video(path, SECONDS)})


def _read_list(path: Path) -> list[Event]:
    """The events of a list, with or without the header that Annotations.txt has."""
    events = []
    for line in read_lines(NAME, path):
        fields = line.strip().split("&")
        if line.strip() == HEADER:
            continue
        if len(fields) != 5 or fields[0] not in CLASSES or not fields[1] or "/" in fields[1]:
            raise DataError(f"{NAME}: {path}: {line!r} is not {HEADER} with one of the {len(CLASSES)} categories")
        events.append(Event(fields[0], fields[1]))
    if not events:
        raise DataError(f"{NAME}: {path} has no events")
    return events
