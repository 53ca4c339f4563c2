"""The kinds of files that `fedmosaic import` reads: those of a shard, DICOM and NIfTI."""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from common.media.contents import HEAD, is_dicom
from common.media.values import KNOWN

DICOM = {".dcm", ".dicom"}
NIFTI = {".nii", ".nii.gz"}
ENDINGS = KNOWN | DICOM | NIFTI
PACKAGES = {".dcm": ("DICOM", "pydicom", "dicom"), ".nii": ("NIfTI", "nibabel", "nifti")}
"""Name of the format, module and extra, by the kind of a file."""
DIRECTORY = "DICOMDIR"
"""The name of the file that lists the files of a medium (PS3.10, section 8.6). It has no pixels."""


def ending(path: Path) -> str:
    """The known ending of a file's name in small letters, e.g. ".png" or ".nii.gz"; "" for another or no ending."""
    name = path.name.lower()
    return max((one for one in ENDINGS if name.endswith(one) and name != one), key=len, default="")


def without_ending(path: Path) -> Path:
    """The path without its known ending. DICOM files are often named by numbers with dots, which stay."""
    return path.with_name(path.name[: len(path.name) - len(ending(path))])


def kind(path: Path) -> str:
    """The ending that stands for the decoder of a file: an ending of `KNOWN`, ".dcm" or ".nii"; "" if the file cannot
    be read. A file with no known ending is a DICOM file if its first bytes are those of one."""
    known = ending(path)
    if known in KNOWN:
        return known
    if known in NIFTI:
        return ".nii"
    return ".dcm" if known in DICOM or (not known and _begins_as_dicom(path)) else ""


def is_directory_file(path: Path) -> bool:
    """Whether a file is the list of files on a DICOM medium."""
    return path.name.upper() == DIRECTORY


def lacking(paths: Iterable[Path]) -> Iterable[str]:
    """For each format whose package is not installed, a sentence with the command that installs it."""
    first: dict[str, Path] = {}
    for path in paths:
        if (one := kind(path)) in PACKAGES:
            first.setdefault(one, path)
    for one, path in sorted(first.items()):
        form, module, extra = PACKAGES[one]
        if find_spec(module) is None:
            yield f"{path} is a {form} file, and {module} is not installed: pip install 'fedmosaic[{extra}]'"


def _begins_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_dicom(file.read(HEAD))
    except OSError:
        return False
