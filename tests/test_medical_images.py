"""TIFF, DICOM and NIfTI files as hospitals and microscopes write them."""

import io
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from test_cases_import import imported

from common.config.component import build
from common.data.shard import Shard
from common.media import pictures
from common.media.values import read
from deploy.shards.inspection.attention import attention
from deploy.shards.inspection.survey import survey
from deploy.shards.own_files import kinds
from deploy.shards.own_files.dicom import read_dicom, windowed
from deploy.shards.own_files.nifti import read_nifti
from deploy.shards.own_files.slices import Choice
from deploy.shards.own_files.windows import Window

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    MPEG2MPML,
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

Said = pytest.CaptureFixture[str]
NAME, NUMBER, BORN, STUDY, IMAGE = (
    "Zweistein^Alberta",
    "PID-7734-Q",
    "19410728",
    "1.2.826.0.1.77341",
    "1.2.826.0.1.77342",
)
SECRET = ("Zweistein", "Alberta", NUMBER, BORN, STUDY, IMAGE, "Geheimrat", "20240131")


def ramp() -> NDArray[np.uint16]:
    """[40, 60], from 0 to 65535, with values that do not fit 8 bits."""
    return np.linspace(0, 65535, 2400).round().astype(np.uint16).reshape(40, 60)


def narrow(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The 8-bit twin: 257 values of 16 bits for each grey."""
    return np.rint(values / 257).astype(np.uint8)


def dicom(
    path: Path, pixels: NDArray[Any], syntax: UID = ExplicitVRLittleEndian, bits: int | None = None, **tags: Any
) -> Path:
    """A DICOM file with pixels [H, W], [frames, H, W] or [H, W, 3], and with a patient."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax if not syntax.is_encapsulated or syntax == MPEG2MPML else ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID(IMAGE)
    made = FileDataset(None, {}, file_meta=meta, preamble=bytes(128), is_implicit_VR=syntax == ImplicitVRLittleEndian,
                       is_little_endian=syntax != ExplicitVRBigEndian)  # fmt: skip
    made.SOPClassUID, made.SOPInstanceUID, made.StudyInstanceUID = CTImageStorage, UID(IMAGE), UID(STUDY)
    made.PatientName, made.PatientID, made.PatientBirthDate = NAME, NUMBER, BORN
    made.ReferringPhysicianName, made.StudyDate = "Geheimrat^Fritz", "20240131"
    made.Modality, made.BodyPartExamined, made.PixelSpacing = "CT", "CHEST", [0.7031, 0.7031]
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    frames = len(pixels) if pixels.ndim == 3 and not colour else 0
    made.Rows, made.Columns = pixels.shape[1:] if frames else pixels.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        made.PlanarConfiguration = 0
    if frames:
        made.NumberOfFrames = frames
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    made.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    made["PixelData"].VR = "OW" if made.BitsAllocated > 8 else "OB"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that break the standard
        for tag, value in tags.items():
            setattr(made, tag, value)
    if syntax == RLELossless:
        made.compress(syntax, generate_instance_uid=False)
    elif syntax.is_encapsulated:
        meta.TransferSyntaxUID = syntax
        if syntax in (JPEG2000Lossless, JPEGBaseline8Bit):
            file, how = io.BytesIO(), {"no_jp2": True, "irreversible": False}
            options = how if syntax == JPEG2000Lossless else {"quality": 98}
            Image.fromarray(pixels).save(file, "JPEG2000" if syntax == JPEG2000Lossless else "JPEG", **options)
            made.PixelData = file.getvalue()
        made.PixelData = pydicom.encaps.encapsulate([made.PixelData])
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    made.save_as(path, enforce_file_format=True)
    return path


def pixels_of(path: Path, window: Window | None = None, choice: Choice | None = None) -> NDArray[np.uint8]:
    (only,) = read_dicom(path, window, choice).pixels
    return only


def item(**tags: Any) -> Dataset:
    made = Dataset()
    for tag, value in tags.items():
        setattr(made, tag, value)
    return made


def table(entries: NDArray[Any], first: int, bits: int) -> Dataset:
    made = item(LUTDescriptor=[len(entries), first, bits])
    made.add_new("LUTData", "US", entries.tolist())
    return made


def tiff(pixels: NDArray[Any], photometric: int = 1, bits: int | None = None, width: int | None = None) -> bytes:
    """An uncompressed TIFF file, as the standard describes it (TIFF 6.0, section 2): one strip, in the byte order of
    the pixels."""
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    depth = [bits or 8 * pixels.dtype.itemsize] * samples
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    after = 8 + 2 + 12 * 11 + 4
    deep = struct.pack(f"{order}{samples}H", *depth)
    start = after + (len(deep) if samples > 2 else 0)
    tags = {256: (4, width or pixels.shape[1]), 257: (4, len(pixels)), 258: (3, depth[0]), 259: (3, 1),
            262: (3, photometric), 273: (4, start), 277: (3, samples), 278: (4, len(pixels)), 279: (4, pixels.nbytes),
            284: (3, 1), 339: (3, kind)}  # fmt: skip
    entries = b""
    for tag, (form, value) in tags.items():
        if tag == 258 and samples > 2:
            entries += struct.pack(f"{order}HHII", tag, 3, samples, after)
        else:
            packed = struct.pack(order + {3: "H", 4: "I"}[form], value)
            entries += struct.pack(f"{order}HHI", tag, form, 1) + packed.ljust(4, b"\0")
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    extra = deep if samples > 2 else b""
    return head + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + extra + pixels.tobytes()


def seen(path: Path) -> NDArray[Any]:
    picture = read(path)
    assert isinstance(picture, Image.Image)
    return np.asarray(picture)


def shard_of(out: Path, said: Said, folder: Path, *options: str | Path) -> tuple[Shard, str]:
    heard = imported(out, said, f"image={folder}", "--unlabelled", *options)
    return Shard.open(out, labelled=False), heard


class TestTheSamePixels:
    """The condition of the issue: one picture in many files gives one prepared tensor."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "in").mkdir()
        folder, wide = tmp_path / "in", ramp()
        Image.fromarray(narrow(wide)).save(folder / "png8.png")
        Image.fromarray(narrow(wide)).save(folder / "tiff8.tif")
        Image.fromarray(wide).save(folder / "png16.png")
        Image.fromarray(wide).save(folder / "tiff16.tif")
        Image.fromarray(wide).save(folder / "lzw.tiff", compression="tiff_lzw")
        Image.fromarray(wide).save(folder / "deflate.tiff", compression="tiff_adobe_deflate")
        (folder / "big.tif").write_bytes(tiff(wide.astype(">u2")))
        (folder / "inverted.tif").write_bytes(tiff(65535 - wide, photometric=0))
        (folder / "inverted8.tif").write_bytes(tiff(255 - narrow(wide), photometric=0))
        dicom(folder / "full.dcm", wide)
        dicom(folder / "byte.dcm", narrow(wide))
        dicom(folder / "monochrome1.dcm", 65535 - wide, PhotometricInterpretation="MONOCHROME1")
        dicom(folder / "window.dcm", wide, WindowCenter=32768, WindowWidth=65536)
        dicom(folder / "exact.dcm", wide, WindowCenter=32767.5, WindowWidth=65535, VOILUTFunction="LINEAR_EXACT")
        dicom(folder / "signed.dcm", (wide.astype(np.int64) - 32768).astype(np.int16), RescaleSlope=1,
              RescaleIntercept=32768)  # fmt: skip
        for name, syntax in (("rle", RLELossless), ("j2k", JPEG2000Lossless), ("implicit", ImplicitVRLittleEndian),
                             ("swapped", ExplicitVRBigEndian)):  # fmt: skip
            dicom(folder / f"{name}.dcm", wide, syntax)
        return folder

    @pytest.mark.parametrize("channels", [1, 3])
    def test_all_files_give_the_same_tensor(self, folder: Path, channels: int, tmp_path: Path, capsys: Said) -> None:
        shard, said = shard_of(tmp_path / "out", capsys, folder)
        assert "check," not in said and "left out" not in said
        assert len(shard.records) == len(list(folder.iterdir())) == 19
        encoder = build("encoder", {"name": "image", "size": 24, "channels": channels}).build()
        made = {record.id: encoder.prepare(read(record.files["image"])) for record in shard.records}
        own = made["png8"]
        assert own.float().std() > 60
        assert {name for name, one in made.items() if not torch.equal(one, own)} == set()

    def test_dicom_becomes_the_8_bit_twin(self, folder: Path) -> None:
        for path in folder.glob("*.dcm"):
            assert np.array_equal(pixels_of(path), narrow(ramp())), path.name


class TestTiff:
    def save(self, folder: Path, picture: Image.Image, **options: Any) -> Path:
        picture.save(folder / "a.tif", **options)
        return folder / "a.tif"

    def test_modes(self, tmp_path: Path) -> None:
        grey = Image.fromarray(narrow(ramp()))
        for mode in ("1", "L", "P", "RGB", "CMYK", "LA", "RGBA"):
            path = self.save(tmp_path, grey.convert(mode))
            assert (
                np.abs(seen(path).reshape(40, 60, -1)[..., 0].astype(int) - grey.convert(mode).convert("L")).max() <= 1
            )
        path = self.save(tmp_path, grey.convert("1"), compression="group4")
        assert np.array_equal(seen(path), np.asarray(grey.convert("1").convert("L")))
        path = self.save(tmp_path, grey, compression="jpeg", quality=95)
        assert np.abs(seen(path).astype(int) - narrow(ramp())).max() < 12

    def test_colours_of_16_bits(self, tmp_path: Path) -> None:
        wide = np.stack([ramp(), ramp()[::-1], 65535 - ramp()], axis=2)
        for order in "<>":
            (tmp_path / "a.tif").write_bytes(tiff(wide.astype(f"{order}u2"), photometric=2))
            assert np.abs(seen(tmp_path / "a.tif").astype(int) - narrow(wide)).max() <= 1

    def test_12_bits_have_their_own_range(self, tmp_path: Path) -> None:
        values = np.arange(0, 4096, 64).reshape(8, 8)
        even, odd = values[:, ::2], values[:, 1::2]
        packed = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], axis=2).astype(np.uint8).reshape(8, 12)
        (tmp_path / "a.tif").write_bytes(tiff(packed, bits=12, width=8))
        assert np.abs(seen(tmp_path / "a.tif") - values * 255 / 4095).max() <= 0.51

    def test_values_without_a_range_are_refused(self, tmp_path: Path) -> None:
        for values, what in ((ramp().astype(np.float32), "floating-point"), (ramp().astype(np.int16), "from -32755")):
            (tmp_path / "a.tif").write_bytes(tiff(values))
            with pytest.raises(ValueError, match=rf"^a\.tif: .*{what}.*--window"):
                read(tmp_path / "a.tif")

    @pytest.mark.parametrize("compression", [None, "tiff_lzw"])
    @pytest.mark.parametrize("kind", [np.uint8, np.uint16])
    def test_orientation(self, kind: type, compression: str | None, tmp_path: Path) -> None:
        upright = np.arange(60, dtype=kind).reshape(6, 10) * (4 if kind is np.uint8 else 4 * 257)
        stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
                  6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1)}  # fmt: skip
        for orientation, pixels in stored.items():
            exif = Image.Exif()
            exif[0x0112] = orientation
            path = self.save(
                tmp_path, Image.fromarray(np.ascontiguousarray(pixels)), exif=exif, compression=compression
            )
            assert np.array_equal(seen(path), np.arange(60).reshape(6, 10) * 4), orientation

    def test_a_large_picture_of_16_bits_is_turned_and_reduced(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(pictures, "LARGEST_SIDE", 30)
        exif = Image.Exif()
        exif[0x0112] = 6
        path = self.save(tmp_path, Image.fromarray(np.ascontiguousarray(np.rot90(ramp()))), exif=exif)
        assert np.abs(seen(path) - narrow(ramp()).reshape(20, 2, 30, 2).mean(axis=(1, 3))).max() <= 1
        (tmp_path / "b.tif").write_bytes(tiff(65535 - ramp(), photometric=0))
        assert np.abs(seen(tmp_path / "b.tif") - narrow(ramp()).reshape(20, 2, 30, 2).mean(axis=(1, 3))).max() <= 1

    def test_too_large_is_refused_before_it_is_decoded(self, tmp_path: Path) -> None:
        content = tiff(np.zeros((4, 4), np.uint16)).replace(struct.pack("<HHII", 256, 4, 1, 4),
                                                            struct.pack("<HHII", 256, 4, 1, 40_000_000))  # fmt: skip
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(ValueError, match=r"^a\.tif: too large"):
            read(tmp_path / "a.tif")

    def test_what_import_and_inspect_say(self, tmp_path: Path, capsys: Said) -> None:
        (tmp_path / "in").mkdir()
        dark = (ramp() >> 4).astype(np.uint16)
        Image.fromarray(dark).save(tmp_path / "in" / "dark.png")
        pages = [Image.fromarray(narrow(ramp()))] * 2
        pages[0].save(tmp_path / "in" / "pages.tif", save_all=True, append_images=pages[1:])
        shard, said = shard_of(tmp_path / "out", capsys, tmp_path / "in")
        assert "check, image, only the first picture of the file is used: pages.tif" in said
        hint = "image: the largest value in pictures of 16 bits is 4095 of 65535"
        assert hint in said and "--window MODALITY=0:4095" in said
        found = survey(shard)
        assert [hint in one for one in attention(found)] == [True]
        assert "picture, 60 × 40, L, 16 bits" in found.modalities["image"].finder.forms
        shard, said = shard_of(tmp_path / "again", capsys, tmp_path / "in", "--window", "image=0:4095")
        assert "check, image, --window changes only grey pictures of more than 8 bits: pages.tif" in said
        values = {record.id: seen(record.files["image"]) for record in shard.records}
        assert np.array_equal(values["dark"], np.rint(dark * (255 / 4095)))
        assert np.array_equal(values["pages"], narrow(ramp())) and not attention(survey(shard))

    def test_a_window_reads_floats_and_keeps_what_is_upright_and_white(self, tmp_path: Path, capsys: Said) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "float.tif").write_bytes(tiff((ramp() / 65535).astype(np.float32)))
        (tmp_path / "in" / "white.tif").write_bytes(tiff(4095 - (ramp() >> 4), photometric=0))
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(np.ascontiguousarray(np.rot90(ramp() >> 4))).save(tmp_path / "in" / "turned.png", exif=exif)
        shard, _ = shard_of(tmp_path / "out", capsys, tmp_path / "in", "--window", "image=0:4095")
        values = {record.id: seen(record.files["image"]) for record in shard.records}
        expected = np.rint((ramp() >> 4) * (255 / 4095))
        assert np.array_equal(values["white"], expected) and np.array_equal(values["turned"], expected)
        assert values["float"].max() == 0
        shard, _ = shard_of(tmp_path / "unit", capsys, tmp_path / "in", "--window", "image=0:1")
        unit = next(record for record in shard.records if record.id == "float")
        assert np.abs(seen(unit.files["image"]) - ramp() / 257).max() <= 0.51

    def test_16_bits_of_colour_in_a_png(self, tmp_path: Path) -> None:
        """Pillow keeps the upper 8 bits, which differ from the rounded value by 1 at most."""
        import zlib

        wide = np.stack([ramp(), ramp()[::-1], 65535 - ramp()], axis=2)
        half = np.concatenate([wide, np.full((40, 60, 1), 65535, np.uint16)], axis=2)

        def chunk(name: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

        for values, kind in ((wide, 2), (half, 6), (half[:, :, [0, 3]], 4)):
            rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
            head = struct.pack(">IIBBBBB", 60, 40, 16, kind, 0, 0, 0)
            (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
                                             + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip
            expected = narrow(values[..., :3] if kind != 4 else values[..., [0, 0, 0]])
            assert np.abs(seen(tmp_path / "a.png").astype(int) - expected).max() <= 1


class TestWindows:
    def test_the_formula_of_the_standard(self) -> None:
        """The pseudo code of PS3.3 C.11.2.1.2.1 with the example of the standard: centre 2048, width 4096."""

        def standard(x: float, c: float, w: float) -> float:
            if x <= c - 0.5 - (w - 1) / 2:
                return 0.0
            if x > c - 0.5 + (w - 1) / 2:
                return 255.0
            return ((x - (c - 0.5)) / (w - 1) + 0.5) * 255

        for centre, width in ((2048, 4096), (2048, 1), (0, 100), (40, 80), (-600, 1500), (50.5, 3.25)):
            values = np.arange(-2500, 5000)
            expected = [standard(x, centre, width) for x in values.tolist()]
            assert np.abs(windowed(values, centre, width) - expected).max() <= 0.501

    def test_a_width_of_1_is_a_threshold(self) -> None:
        assert windowed(np.array([98, 99, 100, 101]), 100, 1).tolist() == [0, 0, 255, 255]

    def test_other_functions(self) -> None:
        """C.11.2.1.3.1 and C.11.2.1.3.2 by hand."""
        values = np.array([0, 25, 50, 75, 100])
        assert windowed(values, 50, 100, "LINEAR_EXACT").tolist() == [0, 64, 128, 191, 255]
        expected = [255 / (1 + np.exp(2)), 255 / (1 + np.exp(1)), 127.5, 255 / (1 + np.exp(-1)), 255 / (1 + np.exp(-2))]
        assert windowed(values, 50, 100, "SIGMOID").tolist() == np.rint(expected).tolist()
        assert windowed(np.array([-1e9, 1e9]), 0, 1e-3, "SIGMOID").tolist() == [0, 255]

    @pytest.mark.parametrize(
        "wrong",
        [(5, 0.5, "LINEAR"), (5, 0, "SIGMOID"), (5, -1, "LINEAR_EXACT"), (np.nan, 5, "LINEAR"), (5, 5, "SQUARE"),
         (5, np.inf, "LINEAR")],
    )  # fmt: skip
    def test_impossible_windows_are_refused(self, wrong: tuple[float, float, str]) -> None:
        with pytest.raises(ValueError, match="its window has the function"):
            windowed(np.arange(5), *wrong)

    @given(
        st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=40),
        st.floats(-1e4, 1e4),
        st.floats(1, 1e4),
        st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
        st.floats(-1e3, 1e3),
        st.floats(0.01, 100),
    )
    def test_brighter_values_are_never_darker_and_units_do_not_matter(
        self, values: list[float], centre: float, width: float, function: str, shift: float, factor: float
    ) -> None:
        ordered = np.sort(values)
        grey = windowed(ordered, centre, width, function).astype(int)
        assert (np.diff(grey) >= 0).all() and grey.min() >= 0 and grey.max() <= 255
        if function != "LINEAR":  # which has a step of one unit
            other = windowed(ordered * factor + shift, centre * factor + shift, width * factor, function).astype(int)
            assert np.abs(other - grey).max() <= 1

    def test_options(self, tmp_path: Path, capsys: Said) -> None:
        dicom(tmp_path / "a.dcm", ramp())
        windows, volumes = ("image=5:5", "image=x", "image=nan:5", "other=0:5", "image"), ("=0", "=257", "=top")
        wrongs = [("--window", wrong) for wrong in windows] + [("--volume", f"image{wrong}") for wrong in volumes]
        for option, wrong in [*wrongs, ("--volume", "other=3")]:
            said = imported(tmp_path / "out", capsys, f"image={tmp_path}", "--unlabelled", option, wrong, status=2)
            assert option in said


class TestDicom:
    def test_rescale_then_window(self, tmp_path: Path) -> None:
        """Hounsfield units by hand: stored 0, 24, 1024, 1064, 1104, 2000 are -1024, -1000, 0, 40, 80, 976."""
        stored = np.array([[0, 24, 1024, 1064, 1104, 2000]], np.uint16)
        path = dicom(tmp_path / "a.dcm", stored, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=[40, 9],
                     WindowWidth=[80, 9])  # fmt: skip
        assert pixels_of(path).tolist() == [[0, 0, 0, 129, 255, 255]]  # 0 to 79 become 0 to 255: 40 x 255 / 79 = 129.1
        assert pixels_of(path, Window(-1024, 976)).tolist() == [[0, 3, 131, 136, 141, 255]]
        made = dicom(tmp_path / "b.dcm", stored, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40,
                     WindowWidth=80, PhotometricInterpretation="MONOCHROME1")  # fmt: skip
        assert pixels_of(made).tolist() == [[255, 255, 255, 126, 0, 0]]

    def test_without_a_window_the_range_of_the_stored_bits(self, tmp_path: Path) -> None:
        twelve = np.array([[0, 2048, 4095]], np.uint16)
        assert pixels_of(dicom(tmp_path / "a.dcm", twelve, bits=12)).tolist() == [[0, 128, 255]]
        signed = np.array([[-2048, 0, 2047]], np.int16)
        assert pixels_of(dicom(tmp_path / "b.dcm", signed, bits=12)).tolist() == [[0, 128, 255]]
        falling = dicom(tmp_path / "c.dcm", twelve, bits=12, RescaleSlope=-1, RescaleIntercept=4095)
        assert pixels_of(falling).tolist() == [[255, 127, 0]]

    @pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
    def test_padding_is_black(self, kind: str, tmp_path: Path) -> None:
        """C.7.5.1.1.2: one value, or a range of values, only fills up the rectangle."""
        stored = np.array([[0, 1, 2, 100, 255]], np.uint8)
        grey = stored[0] if kind == "MONOCHROME2" else 255 - stored[0]
        one = dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation=kind, PixelPaddingValue=0)
        assert pixels_of(one).tolist() == [[0, *grey[1:].tolist()]]
        some = dicom(tmp_path / "b.dcm", stored, PhotometricInterpretation=kind, PixelPaddingValue=1,
                     PixelPaddingRangeLimit=0)  # fmt: skip
        assert pixels_of(some).tolist() == [[0, 0, *grey[2:].tolist()]]

    def test_tables(self, tmp_path: Path) -> None:
        """C.11.1.1.1 and C.11.2.1.1: values below the first one get the first entry, values above the last one the
        last entry."""
        stored = np.array([[0, 9, 10, 11, 12, 13, 255]], np.uint8)
        squares = Sequence([table(np.array([0, 1000, 2000, 4095]), 10, 12)])
        grey = [[0, 0, 0, 62, 125, 255, 255]]
        voi = dicom(tmp_path / "a.dcm", stored, VOILUTSequence=squares, WindowCenter=1, WindowWidth=2)
        assert pixels_of(voi).tolist() == grey
        modality = dicom(tmp_path / "b.dcm", stored, ModalityLUTSequence=squares)
        assert pixels_of(modality).tolist() == grey
        both = dicom(tmp_path / "c.dcm", stored, ModalityLUTSequence=squares, WindowCenter=1000.5, WindowWidth=2001)
        assert pixels_of(both).tolist() == [[0, 0, 0, 128, 255, 255, 255]]
        packed = item(LUTDescriptor=[4, 10, 8])
        packed.add_new("LUTData", "OW", bytes([0, 100, 200, 255]))
        assert pixels_of(dicom(tmp_path / "d.dcm", stored, VOILUTSequence=Sequence([packed]))).tolist() == [
            [0, 0, 0, 100, 200, 255, 255]
        ]

    def test_windows_and_slopes_of_enhanced_files(self, tmp_path: Path) -> None:
        frames = np.array([[[0, 100, 200, 0]]] * 2, np.uint16)
        shared = item(PixelValueTransformationSequence=Sequence([item(RescaleSlope=2, RescaleIntercept=-100)]))
        windows = [item(FrameVOILUTSequence=Sequence([item(WindowCenter=c, WindowWidth=201)])) for c in (0.5, 200.5)]
        path = dicom(tmp_path / "a.dcm", frames, SharedFunctionalGroupsSequence=Sequence([shared]),
                     PerFrameFunctionalGroupsSequence=Sequence(windows))  # fmt: skip
        first, second = read_dicom(path, None, Choice(2)).pixels
        assert first.tolist() == [[0, 255, 255, 0]]  # -100, 100, 300 in -100 to 100
        assert second.tolist() == [[0, 0, 255, 0]]  # in 100 to 300

    def test_colours(self, tmp_path: Path) -> None:
        rgb = np.stack([narrow(ramp()), narrow(ramp())[::-1], 255 - narrow(ramp())], axis=2)
        assert np.array_equal(pixels_of(dicom(tmp_path / "a.dcm", rgb)), rgb)
        y = np.array([[[76, 85, 255], [150, 44, 21], [29, 255, 107]]], np.uint8)  # red, green, blue in JPEG's YCbCr
        made = pixels_of(dicom(tmp_path / "b.dcm", y, PhotometricInterpretation="YBR_FULL"))
        assert np.abs(made.astype(int) - [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]).max() <= 2
        smooth = np.stack([narrow(ramp()), 255 - narrow(ramp()), narrow(ramp()) // 2], axis=2)
        for syntax, kind, most in ((JPEGBaseline8Bit, "YBR_FULL_422", 8), (JPEG2000Lossless, "YBR_RCT", 0)):
            made = pixels_of(dicom(tmp_path / "b.dcm", smooth, syntax, PhotometricInterpretation=kind))
            assert np.abs(made.astype(int) - smooth).max() <= most
        planes = dicom(tmp_path / "c.dcm", rgb, PlanarConfiguration=1)
        assert np.array_equal(pixels_of(planes), rgb.reshape(3, 40, 60).transpose(1, 2, 0))
        palette = {f"{colour}PaletteColorLookupTable{part}": value for colour, numbers in
                   (("Red", [0, 65535, 0]), ("Green", [0, 0, 32896]), ("Blue", [65535, 0, 0]))
                   for part, value in (("Descriptor", [3, 0, 16]),
                                       ("Data", np.array(numbers, "<u2").tobytes()))}  # fmt: skip
        indexed = dicom(tmp_path / "d.dcm", np.array([[0, 1, 2]], np.uint8), PhotometricInterpretation="PALETTE COLOR",
                        **palette)  # fmt: skip
        assert pixels_of(indexed).tolist() == [[[0, 0, 255], [255, 0, 0], [0, 128, 0]]]

    def test_frames(self, tmp_path: Path, capsys: Said) -> None:
        (tmp_path / "in").mkdir()
        frames = np.arange(0, 250, 10, dtype=np.uint8)[:, None, None] + np.zeros((25, 8, 8), np.uint8)
        dicom(tmp_path / "in" / "cine.dcm", frames)
        said = imported(tmp_path / "x", capsys, f"image={tmp_path / 'in'}", "--unlabelled", status=2)
        assert "cine.dcm: has 25 slices or frames: use --volume with MODALITY=middle" in said
        shard, _ = shard_of(tmp_path / "a", capsys, tmp_path / "in", "--volume", "image=middle")
        assert (seen(shard.records[0].files["image"]) == 120).all()
        shard, _ = shard_of(tmp_path / "b", capsys, tmp_path / "in", "--volume", "image=5")
        values = read(shard.records[0].files["image"])
        assert isinstance(values, np.ndarray) and values.shape == (5, 8, 8, 3) and values.dtype == np.uint8
        assert values[:, 0, 0, 0].tolist() == [20, 70, 120, 170, 220]  # the middles of five equal parts
        encoder = build("encoder", {"name": "frames", "frames": 5, "size": 8}).build()
        assert encoder.prepare(values).shape == (5, 3, 8, 8)
        shard, _ = shard_of(tmp_path / "c", capsys, tmp_path / "in", "--volume", "image=200")
        assert len(read(shard.records[0].files["image"])) == 25  # type: ignore[arg-type]

    def test_what_cannot_be_decoded_is_counted_with_the_reason(self, tmp_path: Path, capsys: Said) -> None:
        folder = tmp_path / "in"
        folder.mkdir()
        dicom(folder / "good.dcm", ramp())
        dicom(folder / "jls.dcm", ramp(), JPEGLSLossless)
        dicom(folder / "mpeg.dcm", ramp(), MPEG2MPML)
        dicom(folder / "deflated.dcm", ramp(), DeflatedExplicitVRLittleEndian)
        dicom(folder / "huge.dcm", ramp(), Rows=60000, Columns=60000)
        dicom(folder / "short.dcm", ramp(), Rows=80)
        dicom(folder / "slope.dcm", ramp(), RescaleSlope=0, RescaleIntercept=0)
        (folder / "text.dcm").write_text("no DICOM at all")
        report = pydicom.dcmread(dicom(folder / "report.dcm", ramp()))
        del report.PixelData
        report.Modality = "SR"
        report.save_as(folder / "report.dcm")
        _, said = shard_of(tmp_path / "out", capsys, folder)
        assert "left out, unreadable: 8 of 9 image values (89%)" in said
        for reason in ("jls.dcm: its compression, JPEG-LS Lossless Image Compression, needs a package: pip install",
                       "mpeg.dcm: its compression, MPEG2 Main Profile / Main Level, is not supported",
                       "deflated.dcm: its transfer syntax Deflated", "huge.dcm: too large: 60000 x 60000 pixels",
                       "short.dcm: ", "slope.dcm: its rescale slope is 0", "text.dcm: it is not a DICOM file",
                       "report.dcm: it has no pixels (DICOM modality SR)"):  # fmt: skip
            assert reason in said, said
        assert json.loads((tmp_path / "out" / "shard.json").read_text())["made"]["unreadable"] == {"image": 8}

    def test_bits_that_do_not_end_at_0_are_refused(self, tmp_path: Path) -> None:
        values = np.array([[0, 1, 2048, 4095]], np.uint16)
        with pytest.raises(ValueError, match="12 bits, the highest is bit 15, but it must be bit 11"):
            read_dicom(dicom(tmp_path / "a.dcm", values << 4, bits=12, HighBit=15), None, None)

    def test_files_without_an_ending(self, tmp_path: Path, capsys: Said) -> None:
        folder = tmp_path / "in"
        folder.mkdir()
        for name in ("IM0001", "1.2.840.77", "b.DCM"):
            dicom(folder / name, ramp())
        (folder / "DICOMDIR").write_bytes((folder / "IM0001").read_bytes())
        (folder / "README").write_text("notes")
        (tmp_path / "labels.csv").write_text("id,label\nIM0001,x\n1.2.840.77,y\nb,x\n")
        said = imported(tmp_path / "out", capsys, f"image={folder}", "--labels", tmp_path / "labels.csv")
        assert "image: 3 of 3 files" in said
        assert f"left out, image, a list of DICOM files without pixels: {folder / 'DICOMDIR'}" in said
        assert f"left out, image, not a file of a known kind: {folder / 'README'}" in said
        assert {r.id: r.label for r in Shard.open(tmp_path / "out").records} == {
            "IM0001": "x",
            "1.2.840.77": "y",
            "b": "x",
        }
        (tmp_path / "files.csv").write_text("id,label,scan\n1,x,in/IM0001\n2,y,in/b.DCM\n")
        said = imported(tmp_path / "two", capsys, "--labels", tmp_path / "files.csv", "--file-columns", "image=scan")
        assert "image: 2 of 2 files" in said

    def test_a_missing_package_is_named_with_the_command(
        self, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dicom(tmp_path / "IM0001", ramp())
        volume(tmp_path / "a.nii.gz", np.zeros((4, 4, 1), np.int16))
        monkeypatch.setattr(kinds, "find_spec", lambda name: None)
        said = imported(tmp_path / "out", capsys, f"image={tmp_path}", "--unlabelled", status=2)
        assert "IM0001 is a DICOM file, and pydicom is not installed: pip install 'fedmosaic[dicom]'" in said
        assert "a.nii.gz is a NIfTI file, and nibabel is not installed: pip install 'fedmosaic[nifti]'" in said


class TestPrivacy:
    def test_nothing_of_the_patient_is_in_the_shard(self, tmp_path: Path, capsys: Said) -> None:
        folder = tmp_path / "in"
        folder.mkdir()
        dicom(folder / "a.dcm", ramp(), ViewPosition="PA")
        dicom(folder / "b.dcm", ramp(), JPEG2000Lossless, BodyPartExamined="of Zweistein", ViewPosition="ALBERTA")
        dicom(folder / "c", np.stack([ramp()] * 3))
        shard, said = shard_of(tmp_path / "out", capsys, folder, "--volume", "image=middle")
        assert len(shard.records) == 3 and "check," not in said
        for path in [path for path in (tmp_path / "out").rglob("*") if path.is_file()]:
            content = path.read_bytes().lower()
            for secret in SECRET:
                assert secret.lower().encode() not in content, (path.name, secret)
                assert secret.lower().encode("utf-16-le") not in content
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    picture.load()
                    assert picture.info == {} and not picture.getexif()
        assert shard.info.made["dicom"] == {"image": {
            "Modality": {"CT": 3}, "BodyPartExamined": {"CHEST": 2, "other": 1}, "ViewPosition": {"PA": 1, "other": 1},
            "PixelSpacing": {"0.7 x 0.7": 3}}}  # fmt: skip

    def test_burned_in_text_and_ids_are_warned_about(self, tmp_path: Path, capsys: Said) -> None:
        dicom(tmp_path / "burned.dcm", ramp(), BurnedInAnnotation="YES")
        dicom(tmp_path / "clean.dcm", ramp(), BurnedInAnnotation="NO")
        dicom(tmp_path / "zweistein_1.dcm", ramp())
        dicom(tmp_path / IMAGE, ramp())
        _, said = shard_of(tmp_path / "out", capsys, tmp_path)
        assert "check, image, the file declares burned-in text: it may show the patient's name: burned.dcm\n" in said
        assert (f"check, image, the id contains the patient's name, number or UID of the DICOM file: {IMAGE}, "
                "zweistein_1.dcm\n") in said  # fmt: skip

    def test_little_contrast_is_mentioned(self, tmp_path: Path, capsys: Said) -> None:
        dicom(tmp_path / "flat.dcm", (ramp() >> 4).astype(np.uint16))
        _, said = shard_of(tmp_path / "out", capsys, tmp_path)
        assert "it has no window and uses little of its range" in said and "flat.dcm" in said


def volume(path: Path, values: NDArray[Any], affine: NDArray[Any] | None = None, **scale: float) -> Path:
    made = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    if scale:
        made.header.set_slope_inter(scale["slope"], scale["inter"])
    made.to_filename(path)
    return path


class TestNifti:
    def test_slices_are_axial_in_every_orientation(self, tmp_path: Path) -> None:
        """The oracle is nibabel's own canonical form, right to the front to the head."""
        values = np.random.default_rng(0).integers(0, 250, (5, 6, 7)).astype(np.int16)
        for code in ("RAS", "LPS", "LAS", "PIR", "SLA", "ASR", "IPL", "SRP"):
            order = nibabel.orientations.axcodes2ornt(tuple(code))
            affine = nibabel.orientations.inv_ornt_aff(order, (5, 6, 7))
            path = volume(tmp_path / "a.nii.gz", values, affine)
            canonical = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
            slices = read_nifti(path, Window(0, 255), Choice(300)).pixels
            assert len(slices) == canonical.shape[2]
            for height, one in enumerate(slices):
                expected = canonical[:, :, height].T[::-1, ::-1]  # the front above, the patient's right on the left
                assert np.array_equal(one, expected), (code, height)

    def test_the_same_slice_as_in_dicom(self, tmp_path: Path, capsys: Said) -> None:
        """DICOM's rows go from the patient's right to left and from the front to the back: its axes are left, back,
        head (PS3.3 C.7.6.2.1.1)."""
        slices = np.random.default_rng(1).integers(-1000, 1000, (3, 8, 10)).astype(np.int16)
        (tmp_path / "in").mkdir()
        dicom(tmp_path / "in" / "d.dcm", slices[1])
        volume(tmp_path / "in" / "n.nii.gz", slices.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]))
        shard, _ = shard_of(
            tmp_path / "out", capsys, tmp_path / "in", "--window", "image=lung", "--volume", "image=middle"
        )
        first, second = (seen(record.files["image"]) for record in shard.records)
        assert np.array_equal(first, second)
        assert np.array_equal(first, np.rint(np.clip((slices[1] + 1350) / 1500, 0, 1) * 255))

    def test_slope_percentiles_and_gaps(self, tmp_path: Path) -> None:
        values = np.arange(1000, dtype=np.int16).reshape(25, 40, 1)
        plain, scaled = (
            read_nifti(volume(tmp_path / name, values, **scale), None, None).pixels[0]
            for name, scale in (("a.nii", {}), ("b.nii", {"slope": 0.5, "inter": -1024.0}))
        )
        assert np.array_equal(plain, scaled)
        low, high = 0.005 * 999, 0.995 * 999  # percentiles of 0 to 999, linear between neighbours
        expected = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)[:, :, 0].T[::-1, ::-1]
        assert np.array_equal(plain, expected)
        window = read_nifti(tmp_path / "b.nii", Window(-1024, -1024 + 999 * 0.5), None).pixels[0]
        assert window.min() == 0 and window.max() == 255
        holes = np.where(values < 500, np.nan, values).astype(np.float32)
        seen = read_nifti(volume(tmp_path / "c.nii", holes), None, None).pixels[0]
        assert (seen[values[:, :, 0].T[::-1, ::-1] < 500] == 0).all() and seen.max() == 255

    @pytest.mark.filterwarnings("error")
    def test_a_range_wider_than_any_number_is_refused(self, tmp_path: Path) -> None:
        values = np.repeat([-1.7e308, 0.0, 1.7e308], 8)
        nibabel.save(nibabel.Nifti1Image(values.reshape(2, 3, 4), np.eye(4)), tmp_path / "a.nii")
        with pytest.raises(ValueError, match=r"values reach from -1\.7e\+308 to 1\.7e\+308: name their range"):
            read_nifti(tmp_path / "a.nii", None, Choice(4))
        (seen,) = read_nifti(tmp_path / "a.nii", Window(-1.0, 1.0), Choice()).pixels
        assert set(np.unique(seen)) <= {0, 128, 255}

    def test_frames_and_pictures_in_a_shard(self, tmp_path: Path, capsys: Said) -> None:
        folder = tmp_path / "in"
        folder.mkdir()
        values = np.broadcast_to(np.arange(30, dtype=np.uint8), (6, 8, 30)).copy()
        volume(folder / "brain.nii.gz", values)
        (tmp_path / "labels.csv").write_text("id,label\nbrain,x\n")
        options = (f"image={folder}", "--labels", tmp_path / "labels.csv", "--window", "image=0:255", "--volume")
        imported(tmp_path / "a", capsys, *options, "image=middle")
        assert (seen(tmp_path / "a" / "image" / "brain.png") == 15).all()
        imported(tmp_path / "b", capsys, *options, "image=3")
        frames = read(tmp_path / "b" / "image" / "brain.npy")
        assert isinstance(frames, np.ndarray) and frames.shape == (3, 8, 6, 3)
        assert frames[:, 0, 0].tolist() == [[5] * 3, [15] * 3, [25] * 3]

    def test_what_is_refused(self, tmp_path: Path) -> None:
        values = np.zeros((4, 4, 3), np.int16)
        for made, what in ((np.zeros((4, 4, 3, 2), np.int16), "a volume of 3 dimensions is needed, this file has 4"),
                           (values.astype(np.complex64), "a volume of real numbers"), (values, "has 3 slices"),
                           (np.full((4, 4, 1), np.nan, np.float32), "not finite")):  # fmt: skip
            with pytest.raises(ValueError, match=what):
                read_nifti(volume(tmp_path / "a.nii", made), None, None)
        assert read_nifti(volume(tmp_path / "b.nii", values[:, :, :1, None, None]), None, None).pixels[0].shape == (
            4,
            4,
        )
        whole = volume(tmp_path / "c.nii", values).read_bytes()
        for damaged, what in ((whole[:360], "not enough data"), (b"x" * 400, "cannot be decoded"),
                              (whole[:42] + struct.pack("<2h", 30000, 30000) + whole[46:], "too large")):  # fmt: skip
            (tmp_path / "d.nii").write_bytes(damaged)
            with pytest.raises(ValueError, match=what):
                read_nifti(tmp_path / "d.nii", None, Choice())


def test_a_shard_cannot_contain_them(tmp_path: Path) -> None:
    """DICOM and NIfTI are read when a shard is made, so that no node needs pydicom, and shards have no patient data."""
    dicom(tmp_path / "a.dcm", ramp())
    volume(tmp_path / "b.nii", np.zeros((4, 4, 1), np.int16))
    for name, what in (("a.dcm", "files ending in .dcm are not supported"), ("a.png", "a DICOM file: only"),
                       ("b.png", "a NIfTI volume: only")):  # fmt: skip
        source = tmp_path / name
        if name.endswith("png"):
            source.write_bytes(next(tmp_path.glob(f"{name[0]}.*[!g]")).read_bytes())
        with pytest.raises(ValueError, match=what):
            read(source)
