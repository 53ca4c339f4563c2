"""Turns a site's own files into the files of a shard."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from common.data.shard import Media
from common.media.pictures import BRIGHTEST, SEVERAL, is_white_zero, is_wide, narrow_range, opened, plain
from common.media.values import TEXTS, encode_image, read
from common.modality import Modality
from deploy.shards.own_files.dicom import names_patient, read_dicom
from deploy.shards.own_files.kinds import kind
from deploy.shards.own_files.nifti import read_nifti
from deploy.shards.own_files.slices import Choice, Slices
from deploy.shards.own_files.windows import Window

WIDE = {".png", ".tif", ".tiff"}
"""Endings of pictures that may have more than 8 bits per channel."""
READERS: dict[str, Callable[[Path, Window | None, Choice | None], Slices]] = {".dcm": read_dicom, ".nii": read_nifti}


@dataclass
class Conversion:
    """The conversion of files, and the remarks about them, which appear while files are read.

    windows, choices: the options --window and --volume by modality. remarks: names of files by remark. kept: counts of
    the values of DICOM tags, by modality and tag.
    """

    windows: Mapping[Modality, Window] = field(default_factory=dict)
    choices: Mapping[Modality, Choice] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    kept: dict[Modality, dict[str, Counter[str]]] = field(default_factory=dict)
    _brightest: dict[Modality, int] = field(default_factory=dict)

    def media(self, modality: Modality, name: str, path: Path) -> Media:
        """The value of the example `name` in a file. Its bytes are made when they are read."""
        what = kind(path)
        if what in READERS:
            as_frames = modality in self.choices and self.choices[modality].as_frames
            return Media(partial(self._slices, modality, name, path, READERS[what]), ".npy" if as_frames else ".png")
        if what in TEXTS:
            return Media(partial(_text, path))
        if what in WIDE and modality in self.windows:
            return Media(partial(self._windowed, modality, path), ".png")
        return Media(partial(self._copied, modality, path), what)

    def said(self) -> Iterable[str]:
        """Sentences about pictures that use a part of their range. Call this after the files were read."""
        for modality, brightest in sorted(self._brightest.items()):
            if hint := narrow_range(brightest):
                yield f"{modality}: {hint}"

    def made(self) -> dict[str, Any]:
        """The counts of the kept DICOM tags, for `made` of shard.json."""
        kept = {m: {tag: dict(counts.most_common()) for tag, counts in tags.items()} for m, tags in self.kept.items()}
        return {"dicom": kept} if kept else {}

    def _slices(self, modality: Modality, name: str, path: Path, reader: Any) -> bytes:
        """Raises ValueError, which names the file."""
        choice = self.choices.get(modality)
        try:
            slices: Slices = reader(path, self.windows.get(modality), choice)
        except (ValueError, MemoryError) as error:
            raise ValueError(f"{path.name}: {str(error).replace(str(path), path.name)}") from error
        for remark in slices.remarks:
            self._remark(modality, remark, path)
        if names_patient(name, slices.patient):
            self._remark(modality, "the id contains the patient's name, number or UID of the DICOM file", path)
        for tag, value in slices.kept.items():
            self.kept.setdefault(modality, {}).setdefault(tag, Counter())[value] += 1
        return slices.encoded(choice is not None and choice.as_frames)

    def _windowed(self, modality: Modality, path: Path) -> bytes:
        """A picture as PNG, with the values of more than 8 bits in the window of the modality. Raises ValueError."""
        try:
            with opened(path) as picture:
                if is_wide(picture):
                    return encode_image(_in_window(picture, self.windows[modality]))
                self._remark(modality, "--window changes only grey pictures of more than 8 bits", path)
                return encode_image(np.asarray(plain(picture)))
        except (OSError, SyntaxError, RuntimeError) as error:
            raise ValueError(f"{path.name}: {error}") from error

    def _copied(self, modality: Modality, path: Path) -> bytes:
        """The bytes of a file. Raises ValueError when it cannot be decoded."""
        raw = read(path)
        if isinstance(raw, Image.Image):
            if raw.info.get(SEVERAL):
                self._remark(modality, "only the first picture of the file is used", path)
            if BRIGHTEST in raw.info:
                self._brightest[modality] = max(raw.info[BRIGHTEST], self._brightest.get(modality, 0))
        return path.read_bytes()

    def _remark(self, modality: Modality, remark: str, path: Path) -> None:
        self.remarks.setdefault(f"{modality}, {remark}", []).append(path.name)


def _in_window(picture: Image.Image, window: Window) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Upright pixels [H, W]."""
    grey = window.grey(np.asarray(picture))
    seen = Image.fromarray(255 - grey if is_white_zero(picture) else grey)
    seen.info = {name: value for name, value in picture.info.items() if name != "transparency"}
    return np.asarray(ImageOps.exif_transpose(seen))


def _text(path: Path) -> bytes:
    """The stripped text of a file. Raises ValueError."""
    text = read(path)
    assert isinstance(text, str)
    return text.strip().encode()
