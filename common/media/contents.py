"""Detects the real format of a file whose content does not match its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PICTURE, RECORDING, ARRAY = "picture", "recording", "array"
OURS: dict[bytes, tuple[str, str]] = {
    b"\x89PNG": ("PNG", PICTURE),
    b"\xff\xd8\xff": ("JPEG", PICTURE),
    b"GIF8": ("GIF", PICTURE),
    b"BM": ("BMP", PICTURE),
    b"II*\x00": ("TIFF", PICTURE),
    b"MM\x00*": ("TIFF", PICTURE),
    b"II+\x00": ("TIFF", PICTURE),
    b"MM\x00+": ("TIFF", PICTURE),
    b"fLaC": ("FLAC", RECORDING),
    b"OggS": ("Ogg", RECORDING),
    b"ID3": ("MP3", RECORDING),
    b"\x93NUMPY": ("NumPy", ARRAY),
}
"""Formats that can be read if the file has the right ending: format and family by the first bytes."""
MAGIC: dict[bytes, str] = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive (or an office document)",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x89HDF": "an HDF5 file (as newer .mat files are)",
    b"MATLAB": "a MATLAB file",
    b"\x80\x04": "pickled Python objects, which are never loaded",
    b"\x1aE\xdf\xa3": "a Matroska or WebM video",
}
"""Formats that cannot be read, by the first bytes."""
PAGE = "a web page (HTML), perhaps from a failed download"
WORDS: dict[bytes, str] = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: fetch it with 'git lfs pull'",
    b"/annex/objects": "a git-annex pointer, not the file itself: fetch it with 'git annex get'",
    b"<svg": "an SVG drawing: save it as PNG",
    b"<!doctype html": PAGE,
    b"<html": PAGE,
    b"<head": PAGE,
    b"<?xml": "an XML text",
    b"{": "a JSON text",
}
"""Text formats that cannot be read, by the first characters in lower case, without leading blanks."""
RIFF = {b"WAVE": ("WAV", RECORDING), b"WEBP": ("WebP", PICTURE)}
BRANDS = {
    b"heic": "a HEIC picture (of an iPhone): save it as JPEG or PNG",
    b"heix": "a HEIC picture (of an iPhone): save it as JPEG or PNG",
    b"mif1": "a HEIF picture: save it as JPEG or PNG",
    b"msf1": "a HEIF picture: save it as JPEG or PNG",
    b"avif": "an AVIF picture: save it as JPEG or PNG",
    b"M4A ": "an M4A (AAC) recording: save it as WAV, FLAC or MP3",
    b"qt  ": "a QuickTime video",
}
"""Files in the ISO base media format, by the brand at byte 8."""
DICOM_AT, NIFTI_AT = 128, 344
HEAD = 512


def actual(path: Path, family: str) -> str | None:
    """A description of a file that the decoder of a family could not read; None if its first bytes do not show another
    format."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None
    if not head:
        return "an empty file"
    if not head.strip(b"\0"):
        return "a file of zeros, perhaps from an interrupted copy"
    if is_dicom(head):
        return "a DICOM file: only `fedmosaic import` reads DICOM"
    if head[NIFTI_AT : NIFTI_AT + 3] in (b"n+1", b"ni1"):
        return "a NIfTI volume: only `fedmosaic import` reads NIfTI"
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:12], "an MP4 video")
    if ours := RIFF.get(head[8:12]) if head[:4] == b"RIFF" else _beginning(head, OURS):
        return f"a file of format {ours[0]}, which is a {ours[1]}" if ours[1] != family else None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return _beginning(head, MAGIC) or _beginning(text, WORDS)


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a DICOM file (PS3.10, section 7.1)."""
    return head[DICOM_AT : DICOM_AT + 4] == b"DICM"


def _beginning(head: bytes, known: Mapping[bytes, T]) -> T | None:
    return next((what for beginning, what in known.items() if head.startswith(beginning)), None)
