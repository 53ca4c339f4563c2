"""CREMA-D: actors say a sentence with one of six emotions, recorded as sound and video frames.

H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma, "CREMA-D: Crowd-Sourced Emotional Multimodal
Actors Dataset", IEEE Transactions on Affective Computing 5(4), 2014. 7,442 clips of 91 actors.
"""

import re
from pathlib import Path
from typing import ClassVar, Literal

from common.data.shard import Example, Media
from common.datasets.base import only_in_training, read_lines
from common.datasets.shared.clips import Clips
from common.errors import DataError
from common.media.video import require
from common.seeding import rng

NAME = "crema-d"
CLASSES = ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"]
CLIP = re.compile(r"(\d{4})_[A-Z]{3}_(" + "|".join(CLASSES) + r")_[A-Z]{1,2}")
SECONDS = 3
TEST_SHARE = 0.1
POINTER = b"version https://git-lfs"


class CremaD(Clips):
    """Emotions of actors. Each natural client has one actor."""

    licence: ClassVar[str] = "ODbL 1.0, contents DbCL 1.0 (CREMA-D)"

    folder: str
    """The folder with AudioWAV and VideoFlash."""
    split: Literal["lists", "seeded"] = "lists"
    """How the clips are divided into training and test part. `lists` reads train.csv and test.csv of the folder, with
    lines `name,label` as published with OGM-GE (X. Peng et al., CVPR 2022; 6,698 and 744 clips). `seeded` holds out a
    tenth of the clips, the same ones in every experiment."""

    @property
    def classes(self) -> list[str]:
        """The codes of the emotions in the file names: anger, disgust, fear, happiness, neutral, sadness."""
        return list(CLASSES)

    def examples(self, part: str, seed: int) -> list[Example]:
        """One example per clip: the unchanged sound and frames of the video. The natural group is the actor."""
        require(NAME)
        root = Path(self.folder)
        names = _listed(root, part) if self.split == "lists" else _seeded(root, part)
        _check_content(root, names[0])
        return [self._example(root, name) for name in names]

    def _example(self, root: Path, name: str) -> Example:
        speaker, label = _fields(name, root)
        video = self.video(root / "VideoFlash" / f"{name}.flv", SECONDS)
        sound = Media((root / "AudioWAV" / f"{name}.wav").read_bytes, ".wav")
        return Example(name, label, {"audio": sound, "video": video}, speaker)


def _fields(name: str, source: Path) -> tuple[str, str]:
    """The speaker and the class of a clip, e.g. 1001 and ANG for 1001_DFA_ANG_XX."""
    if match := CLIP.fullmatch(name):
        return match[1], match[2]
    raise DataError(f"{NAME}: {name!r} in {source} is not the name of a clip such as 1001_DFA_ANG_XX")


def _listed(root: Path, part: str) -> list[str]:
    """The clips of a published list. Clips that are in both lists belong only to the test part."""
    lists = {}
    for which in ("train", "test"):
        path = root / f"{which}.csv"
        if not path.is_file():
            raise DataError(f"{NAME}: {path} does not exist: put the list there, or set split to 'seeded'")
        lists[which] = [_entry(line, path) for line in read_lines(NAME, path)]
        if not lists[which]:
            raise DataError(f"{NAME}: {path} has no clips")
    return lists["test"] if part == "test" else only_in_training(NAME, lists["train"], lists["test"], str)


def _entry(line: str, path: Path) -> str:
    name, _, label = line.strip().partition(",")
    if _fields(name, path)[1] != label.strip():
        raise DataError(f"{NAME}: {path}: the label of {line!r} differs from the label in the clip's name")
    return name


def _seeded(root: Path, part: str) -> list[str]:
    """The clips of a part, among all clips that have a sound or a video. The test part is a tenth, drawn from the
    sorted names."""
    found = {path.stem for kind in ("AudioWAV/*.wav", "VideoFlash/*.flv") for path in root.glob(kind)}
    names = sorted(name for name in found if CLIP.fullmatch(name))
    if not names:
        raise DataError(f"{NAME}: no clips such as 1001_DFA_ANG_XX.wav in {root / 'AudioWAV'} or {root / 'VideoFlash'}")
    order = rng(0, "crema-d test part").permutation(len(names))
    test = set(order[: round(TEST_SHARE * len(names))].tolist())
    return [name for index, name in enumerate(names) if (index in test) == (part == "test")]


def _check_content(root: Path, name: str) -> None:
    """Raises DataError when the recording is a Git LFS pointer. The repository keeps its files in Git LFS, so a plain
    clone contains text files instead of recordings."""
    path = root / "AudioWAV" / f"{name}.wav"
    if path.is_file() and path.read_bytes()[: len(POINTER)] == POINTER:
        raise DataError(f"{NAME}: {path} is a Git LFS pointer, not a recording: run `git lfs pull` in {root}")
