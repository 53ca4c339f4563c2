"""CREMA-D: actors who say a sentence in one of six emotions, as sound and as video frames.

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
    """Emotions of actors; a natural client is one of them."""

    licence: ClassVar[str] = "ODbL 1.0, contents DbCL 1.0 (CREMA-D)"

    folder: str
    """The one with AudioWAV and VideoFlash."""
    split: Literal["lists", "seeded"] = "lists"
    """`lists` takes train.csv and test.csv of the folder, lines `name,label` as published with OGM-GE (X. Peng et al.,
    CVPR 2022), 6,698 and 744 clips; `seeded` holds out a tenth of the clips, the same in every experiment."""

    @property
    def classes(self) -> list[str]:
        """Codes of the emotions, as in the names of the files: anger, disgust, fear, happiness, neutral, sadness."""
        return list(CLASSES)

    def examples(self, part: str, seed: int) -> list[Example]:
        """A clip's sound as it is and frames of its video; the natural group is the actor."""
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
    """Speaker and class of a clip, e.g. 1001 and ANG of 1001_DFA_ANG_XX."""
    if match := CLIP.fullmatch(name):
        return match[1], match[2]
    raise DataError(f"{NAME}: {name!r} in {source} is not the name of a clip such as 1001_DFA_ANG_XX")


def _listed(root: Path, part: str) -> list[str]:
    """The clips of a published list; of the training list those that the test list does not have."""
    lists = {}
    for which in ("train", "test"):
        path = root / f"{which}.csv"
        if not path.is_file():
            raise DataError(f"{NAME}: no {path}: put the list there, or set split to 'seeded'")
        lists[which] = [_entry(line, path) for line in read_lines(NAME, path)]
        if not lists[which]:
            raise DataError(f"{NAME}: {path} has no clips")
    return lists["test"] if part == "test" else only_in_training(NAME, lists["train"], lists["test"], str)


def _entry(line: str, path: Path) -> str:
    name, _, label = line.strip().partition(",")
    if _fields(name, path)[1] != label.strip():
        raise DataError(f"{NAME}: {path}: the label of {line!r} is not the one in the clip's name")
    return name


def _seeded(root: Path, part: str) -> list[str]:
    """Every clip that has a sound or a video; a tenth, drawn from the sorted names, is the test part."""
    found = {path.stem for kind in ("AudioWAV/*.wav", "VideoFlash/*.flv") for path in root.glob(kind)}
    names = sorted(name for name in found if CLIP.fullmatch(name))
    if not names:
        raise DataError(f"{NAME}: no clips such as 1001_DFA_ANG_XX.wav in {root / 'AudioWAV'} or {root / 'VideoFlash'}")
    order = rng(0, "crema-d test part").permutation(len(names))
    test = set(order[: round(TEST_SHARE * len(names))].tolist())
    return [name for index, name in enumerate(names) if (index in test) == (part == "test")]


def _check_content(root: Path, name: str) -> None:
    """The repository keeps its files in Git LFS: a plain clone has a line of text in the place of each."""
    path = root / "AudioWAV" / f"{name}.wav"
    if path.is_file() and path.read_bytes()[: len(POINTER)] == POINTER:
        raise DataError(f"{NAME}: {path} is a Git LFS pointer, not a recording: run `git lfs pull` in {root}")
