"""Reads the pixels of DICOM files with pydicom (the optional extra "dicom"), as a viewer shows them.

The standard is at https://dicom.nema.org/medical/dicom/current/output/html/part03.html. The order of the
transformations is that of PS3.3: modality LUT or rescale (C.11.1), then VOI LUT or window (C.11.2), then inversion for
MONOCHROME1 (C.7.6.3.1.2). Only the tags below are read from a file.
"""

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deploy.shards.own_files.slices import Choice, Slices, check_size, places
from deploy.shards.own_files.windows import Window

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

PIXEL_TAGS = [
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(f"{colour}PaletteColorLookupTable{part}"
      for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
]  # fmt: skip
"""The tags from which a picture is made."""
KEPT = ("Modality", "BodyPartExamined", "ViewPosition")
"""The tags whose values are counted in shard.json. Their values are codes, so they do not identify a patient."""
CODE = re.compile(r"[A-Z][A-Z0-9_ ]{0,15}")
"""The form of a value of a code (VR CS, PS3.5 section 6.2). Other values are counted as "other"."""
SPACING = ("PixelSpacing", "ImagerPixelSpacing")
"""The distances of the pixels in millimetres, which are counted too, with two digits."""
BURNED_IN = "BurnedInAnnotation"
PATIENT = ("PatientName", "PatientID", "OtherPatientIDs", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID",
           "SOPInstanceUID")  # fmt: skip
"""The tags whose values are compared with the example's id. They are not kept."""
SHORTEST = 4
"""The minimum number of characters of a patient's name or number that is searched in ids. Shorter ones occur by
chance."""
DEFLATED = "1.2.840.10008.1.2.1.99"
NARROW = 1 / 4
"""A picture without a window that uses a smaller share of its range is mentioned."""


def read_dicom(path: Path, window: Window | None, choice: Choice | None) -> Slices:
    """The chosen frames of a DICOM file. window: the range of the values, in the unit after the rescaling (Hounsfield
    units for computed tomography); None for the first window of the file. A file without a window gives the whole range
    of the bits that its values have, so that equal values are equally bright in all files.

    Raises ValueError when the file has no pixels that can be decoded, is too large, or has several frames and there is
    no choice.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that do not follow the standard
        try:
            return _slices(_dataset(path), window, choice)
        except (ValueError, MemoryError):
            raise
        except Exception as error:  # pydicom raises many kinds of errors for a damaged file
            raise ValueError(f"cannot be decoded as DICOM ({type(error).__name__}: {error})") from error


def _dataset(path: Path) -> "FileDataset":
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    except InvalidDicomError:
        raise ValueError("it is not a DICOM file: the bytes DICM are missing at byte 128") from None
    if syntax == DEFLATED:  # unpacking may need any amount of memory
        raise ValueError("its transfer syntax Deflated Explicit VR Little Endian is not read")
    return dcmread(path, specific_tags=[*PIXEL_TAGS, *KEPT, *SPACING, BURNED_IN, *PATIENT])


def _slices(dataset: "FileDataset", window: Window | None, choice: Choice | None) -> Slices:
    if "PixelData" not in dataset:
        raise ValueError(f"it has no pixels (DICOM modality {_code(dataset.get('Modality'), [])})")
    chosen = places(choice, int(dataset.get("NumberOfFrames") or 1))
    check_size(int(dataset.Rows), int(dataset.Columns) * int(dataset.SamplesPerPixel), len(chosen))
    _check_syntax(dataset)
    remarks = ["the file declares burned-in text: it may show the patient's name"] if _has_text(dataset) else []
    pixels = [_frame(dataset, index, window, remarks) for index in chosen]
    patient = list(_patient(dataset))
    return Slices(pixels, list(dict.fromkeys(remarks)), dict(_kept(dataset, patient)), patient)


def _check_syntax(dataset: "FileDataset") -> None:
    """Raises ValueError when the compression of the pixels needs a package that is not installed, and when pixels
    without compression have an order of bits that pydicom does not read."""
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        _check_bits(dataset)
        return
    try:
        is_available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise ValueError(f"its compression, {syntax.name}, is not supported") from None
    if not is_available:
        raise ValueError(f"its compression, {syntax.name}, needs a package: pip install 'pylibjpeg[all]'")


def _check_bits(dataset: "FileDataset") -> None:
    """Raises ValueError when a value does not end at bit 0 of its bytes. pydicom would read other values."""
    highest, bits = dataset.get("HighBit"), int(dataset.BitsStored)
    if highest is not None and int(highest) != bits - 1:
        raise ValueError(f"its values have {bits} bits, the highest is bit {highest}, but it must be bit {bits - 1}")


def _frame(dataset: "FileDataset", index: int, window: Window | None, remarks: list[str]) -> NDArray[np.uint8]:
    """[H, W], or [H, W, 3] for colour."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    stored = pixel_array(dataset, index=index)
    kind = dataset.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(stored, dataset)[..., :3]
        return Window(0, np.iinfo(colours.dtype).max).grey(colours)
    if stored.ndim == 3:
        return Window(0, 2**dataset.BitsStored - 1).grey(stored)
    values, unused = _modality_values(dataset, index, stored)
    if window is not None:
        seen = window.grey(values)
    elif (shown := _as_shown(dataset, index, values)) is not None:
        seen = shown
    else:
        seen = unused.grey(values)
        if float(values.max() - values.min()) < NARROW * (unused.high - unused.low):
            remarks.append("it has no window and uses little of its range, so it has little contrast (see --window)")
    shown = 255 - seen if kind == "MONOCHROME1" else seen
    shown[_padding(dataset, stored)] = 0
    return shown


def _padding(dataset: "FileDataset", stored: NDArray[Any]) -> NDArray[np.bool_]:
    """A mask [H, W] of the pixels that only fill up the rectangle (C.7.5.1.1.2). They become black, because with
    MONOCHROME1 their value would be white."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    low, high = sorted((int(value), int(dataset.get("PixelPaddingRangeLimit", value))))
    return (stored >= low) & (stored <= high)


def _modality_values(dataset: "FileDataset", index: int, stored: NDArray[Any]) -> tuple[NDArray[Any], Window]:
    """The values after the modality transformation, and their possible range (C.11.1)."""
    if tables := dataset.get("ModalityLUTSequence"):
        values, top = _looked_up(dataset, tables[0], stored)
        return values, Window(0, top)
    bits, is_signed = int(dataset.BitsStored), bool(dataset.PixelRepresentation)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    source = _group(dataset, index, "PixelValueTransformationSequence")
    slope, intercept = (_first(source.get(tag), usual) for tag, usual in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    if not slope or not np.isfinite([slope, intercept]).all():
        raise ValueError(f"its rescale slope is {slope:g}, its intercept {intercept:g}")
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return stored * slope + intercept, Window(*ends)


def _as_shown(dataset: "FileDataset", index: int, values: NDArray[Any]) -> NDArray[np.uint8] | None:
    """The pixels by the first table or window of the file (C.11.2); None if it has none."""
    source = _group(dataset, index, "FrameVOILUTSequence")
    if tables := source.get("VOILUTSequence"):
        found, top = _looked_up(dataset, tables[0], values)
        return Window(0, top).grey(found)
    centre, width = _first(source.get("WindowCenter")), _first(source.get("WindowWidth"))
    if centre is None or width is None:
        return None
    return windowed(values, centre, width, str(source.get("VOILUTFunction") or "LINEAR"))


def windowed(values: NDArray[Any], centre: float, width: float, function: str = "LINEAR") -> NDArray[np.uint8]:
    """The pixels 0 to 255 by a window: the functions LINEAR (C.11.2.1.2.1), LINEAR_EXACT (C.11.2.1.3.2) and SIGMOID
    (C.11.2.1.3.1).

    Raises ValueError for another function or a width outside of the function's range.
    """
    least = 1.0 if function == "LINEAR" else np.finfo(float).tiny
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or not (np.isfinite(centre) and least <= width < np.inf):
        raise ValueError(f"its window has the function {function}, the centre {centre:g} and the width {width:g}")
    if function == "SIGMOID":
        with np.errstate(over="ignore"):  # exp of a large number is infinite, and the pixel is black
            return np.rint(255 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.uint8)
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return Window(centre - width / 2, centre + width / 2).grey(values)


def _looked_up(dataset: "FileDataset", table: "Dataset", values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The entries of a modality or VOI table for values, and the largest possible entry (C.11.1.1.1, C.11.2.1.1)."""
    entries, first, bits = (int(number) for number in table.LUTDescriptor)
    data = table.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, "u1" if len(data) == entries else f"{order}u2")
    data = np.asarray(data)[: entries or 2**16]  # 0 entries are 2^16, which 16 bits cannot express
    return data[np.clip(np.rint(values).astype(np.int64) - first, 0, len(data) - 1)], 2**bits - 1


def _group(dataset: "Dataset", index: int, name: str) -> "Dataset":
    """The data set that has a frame's window or slope: an item of the functional groups of an enhanced file (C.7.6.16),
    or the file itself."""
    places = (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0))
    for groups, place in places:
        items = dataset.get(groups) or ()
        if place < len(items) and (found := items[place].get(name)):
            item: Dataset = found[0]
            return item
    return dataset


def _first(value: Any, usual: float | None = None) -> Any:
    """The first of one or more numbers; `usual` for an absent or empty value."""
    if value is None or value == "":
        return usual
    numbers = np.atleast_1d(np.asarray(value, dtype=float))
    return float(numbers[0]) if numbers.size else usual


def _has_text(dataset: "Dataset") -> bool:
    return str(dataset.get(BURNED_IN) or "").upper() == "YES"


def _kept(dataset: "Dataset", patient: Sequence[str]) -> Iterable[tuple[str, str]]:
    for tag in KEPT:
        if value := dataset.get(tag):
            yield tag, _code(value, patient)
    for tag in SPACING:
        if value := dataset.get(tag):
            yield tag, " x ".join(f"{float(number):.2g}" for number in value)


def _code(value: object, patient: Sequence[str]) -> str:
    """The value, or "other" for a value that is not a code or contains a part of the patient's data."""
    said = str(value)
    return said if CODE.fullmatch(said) and not names_patient(said, patient) else "other"


def _patient(dataset: "Dataset") -> Iterable[str]:
    for tag in PATIENT:
        value = str(dataset.get(tag) or "")
        parts = re.split(r"[\^= ]", value) if tag == "PatientName" else [value]
        yield from (part.strip() for part in parts)


def names_patient(text: str, patient: Iterable[str]) -> bool:
    """Whether a text contains a part of a patient's name, or a number or UID. patient: `Slices.patient`."""
    folded = text.casefold()
    return any(len(part) >= SHORTEST and part.casefold() in folded for part in patient)
