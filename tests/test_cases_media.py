"""Files as people bring them: every kind of trouble in ../shared/cases that is about reading and preparing a value,
and others of the same kinds."""

import contextlib
import io
import re
import resource
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT
from numpy.typing import NDArray
from PIL import Image

from common.config.component import build
from common.encoders.image import scaled
from common.encoders.text import tokens
from common.media import pictures
from common.media.series import Series
from common.media.sounds import Sound, resampled
from common.media.values import Value, checked, read
from deploy.shards.inspection.drawing import thumbnail

CASES = ROOT.parent / "shared" / "cases"
CHANNELS = (1, 3)


def case(name: str) -> Path:
    """A file of the cases; the test is skipped where they are not at hand."""
    if not CASES.is_dir():
        pytest.skip("the cases of ../shared are not at hand")
    return CASES / name


def prepared(path: Path, encoder: str, **options: Any) -> torch.Tensor:
    """As the encoder's network reads it: pixels from -1 to 1."""
    made: torch.Tensor = build("encoder", {"name": encoder, **options}).build().prepare(read(path))
    return scaled(made) if made.dtype == torch.uint8 else made


def refused(path: Path, encoder: str, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        prepared(path, encoder, **options)
    return str(caught.value)


@pytest.mark.parametrize("channels", CHANNELS)
class TestPicturesOfTheCases:
    def test_16_bits_of_grey_are_as_8(self, channels: int) -> None:
        wide = prepared(case("01-grey16/ramp16.png"), "image", size=16, channels=channels)
        narrow = prepared(case("01-grey16/ramp8.png"), "image", size=16, channels=channels)
        assert torch.allclose(wide, narrow, atol=0.01)
        assert wide.mean().item() == pytest.approx(0, abs=0.005)
        assert (wide.min().item(), wide.max().item()) == pytest.approx((-0.9373, 0.9373), abs=0.005)
        shown = np.asarray(thumbnail(read(case("01-grey16/ramp16.png")), 160))  # type: ignore[arg-type]
        assert shown.mean() == pytest.approx(127, abs=1.5)

    @pytest.mark.parametrize("name", ["orientation6.png", "orientation3.png"])
    def test_pictures_are_turned_as_their_file_says(self, name: str, channels: int) -> None:
        upright = prepared(case("02-exif/upright.png"), "image", size=16, channels=channels)
        assert torch.equal(prepared(case(f"02-exif/{name}"), "image", size=16, channels=channels), upright)
        assert thumbnail(read(case(f"02-exif/{name}")), 160).size == (32, 20)  # type: ignore[arg-type]

    def test_what_is_transparent_is_white(self, channels: int) -> None:
        names = ("hidden_black.png", "hidden_white.png", "on_white.png")
        black, white, opaque = (
            prepared(case(f"03-transparent/{name}"), "image", size=16, channels=channels) for name in names
        )
        assert torch.equal(black, white)
        assert torch.allclose(black, opaque)
        assert black.mean().item() == pytest.approx(0.875, abs=1e-4)

    def test_a_huge_picture_is_read_without_a_word(self, channels: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = prepared(case("15-huge-picture/12000.png"), "image", size=16, channels=channels)
        assert made.isfinite().all()


def test_a_huge_picture_takes_little_memory() -> None:
    file = case("15-huge-picture/12000.png")
    code = f"""
import resource
from pathlib import Path
from common.media.values import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read(Path({str(file)!r}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == ""
    assert int(done.stdout) < 300_000  # kB; 144 million pixels are 144 MB, and were 1.2 GB


def ramp() -> NDArray[np.uint8]:
    """[40, 60] of all different rows and columns."""
    return (np.add.outer(np.arange(40) * 2, np.arange(60) * 2) % 200).astype(np.uint8)


def saved(picture: Image.Image, suffix: str, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, suffix, **options)
    return file


def grey() -> Image.Image:
    return Image.fromarray(ramp())


def transparent(mode: str) -> Image.Image:
    """The left half opaque grey, the right half transparent with black beneath."""
    alpha = np.zeros((40, 60), np.uint8)
    alpha[:, :30] = 255
    pixels = np.where(alpha, 100, 0).astype(np.uint8)
    bands = [pixels] * (1 if mode == "LA" else 3)
    return Image.merge(mode, [Image.fromarray(band) for band in [*bands, alpha]])


LOSSLESS: dict[str, tuple[Callable[[], Image.Image], str, dict[str, Any]]] = {
    "1-bit png": (lambda: grey().convert("1"), "PNG", {}),
    "palette png": (lambda: grey().convert("RGB").quantize(200), "PNG", {}),
    "palette gif": (lambda: grey(), "GIF", {}),
    "grey bmp": (lambda: grey(), "BMP", {}),
    "colour bmp": (lambda: grey().convert("RGB"), "BMP", {}),
    "colour webp": (lambda: grey().convert("RGB"), "WEBP", {"lossless": True}),
    "16-bit png": (lambda: Image.fromarray(ramp().astype(np.uint16) * 257), "PNG", {}),
}


class TestOtherPictures:
    @pytest.mark.parametrize("kind", LOSSLESS)
    def test_every_mode_is_the_same_picture(self, kind: str, tmp_path: Path) -> None:
        make, form, options = LOSSLESS[kind]
        made = make()
        path = tmp_path / f"a.{form.lower()}"
        path.write_bytes(saved(made, form, **options).getvalue())
        seen = read(path)
        assert isinstance(seen, Image.Image) and seen.mode in ("L", "RGB")
        expected = ramp() if made.mode.startswith("I") else np.asarray(made.convert("L"))
        assert np.abs(np.asarray(seen.convert("L")).astype(int) - expected).max() <= 1

    def test_cmyk_is_colour(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95).getvalue())
        red = np.asarray(read(path)).reshape(-1, 3).mean(axis=0)  # type: ignore[arg-type]
        assert red[0] > 200 and red[1] < 60 and red[2] < 60

    @pytest.mark.parametrize("suffix", ["PNG", "WEBP"])
    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_transparency_is_white_whatever_lies_beneath(self, mode: str, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"a.{suffix.lower()}"
        options = {"lossless": True, "exact": True} if suffix == "WEBP" else {}
        path.write_bytes(saved(transparent(mode), suffix, **options).getvalue())
        seen = np.asarray(read(path).convert("L"))  # type: ignore[union-attr]
        assert (seen[:, :30] == 100).all() and (seen[:, 30:] == 255).all()

    def test_transparent_colours_of_palettes_and_of_16_bits(self, tmp_path: Path) -> None:
        picture = grey().convert("RGB").quantize(8)
        hidden = np.asarray(picture) == 0
        picture.save(tmp_path / "a.gif", transparency=0)
        picture.save(tmp_path / "a.png", transparency=0)
        for name in ("a.gif", "a.png"):
            assert (np.asarray(read(tmp_path / name).convert("L"))[hidden] == 255).all()  # type: ignore[union-attr]
        wide = np.full((8, 8), 1000, np.uint16)
        wide[0] = 7
        Image.fromarray(wide).save(tmp_path / "b.png", transparency=7)
        assert np.asarray(read(tmp_path / "b.png"))[0].tolist() == [255] * 8  # type: ignore[arg-type]

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", ["PNG", "WEBP", "JPEG"])
    def test_every_orientation(self, orientation: int, suffix: str, tmp_path: Path) -> None:
        corner = np.zeros((16, 24), np.uint8)
        corner[:8, :8] = 255  # where people see it: above on the left
        turns: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {  # from what is seen to what is stored
            1: lambda a: a,
            2: lambda a: a[:, ::-1],
            3: lambda a: a[::-1, ::-1],
            4: lambda a: a[::-1],
            5: lambda a: a.T,
            6: lambda a: np.rot90(a, 1),
            7: lambda a: a[::-1, ::-1].T,
            8: lambda a: np.rot90(a, -1),
        }
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"a.{suffix.lower()}"
        picture = Image.fromarray(np.ascontiguousarray(turns[orientation](corner)))
        path.write_bytes(
            saved(picture, suffix, exif=exif, **({"lossless": True} if suffix == "WEBP" else {})).getvalue()
        )
        seen = np.asarray(read(path).convert("L")).astype(int)  # type: ignore[union-attr]
        assert seen.shape == (16, 24) and np.abs(seen - corner).max() < 10

    def test_a_large_picture_is_the_mean_of_its_pixels(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(pictures, "LARGEST_SIDE", 20)
        monkeypatch.setattr(pictures, "BAND", 4)
        for mode in ("L", "RGB", "RGBA", "P", "1"):
            grey().convert(mode).save(tmp_path / "a.png")
            seen = np.asarray(read(tmp_path / "a.png").convert("L"))  # type: ignore[union-attr]
            assert seen.shape == (14, 20)
            kept = np.asarray(grey().convert(mode).convert("L")).astype(float)[:39]
            assert np.abs(seen[:13] - kept.reshape(13, 3, 20, 3).mean(axis=(1, 3))).max() <= 1

    @pytest.mark.parametrize("suffix", ["PNG", "WEBP", "JPEG", "TIFF"])
    def test_a_large_picture_is_turned(self, suffix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Also a JPEG picture that is decoded at a smaller size."""
        monkeypatch.setattr(pictures, "LARGEST_SIDE", 60)
        upright = np.zeros((240, 160), np.uint8)
        upright[:120, :80] = 255
        exif = Image.Exif()
        exif[0x0112] = 6
        path = tmp_path / f"a.{suffix.lower()}"
        Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(path, suffix, exif=exif)
        seen = np.asarray(read(path).convert("L"))  # type: ignore[union-attr]
        height, width = seen.shape
        assert height in (60, 30) and height * 2 == width * 3
        assert seen[: height // 2 - 1, : width // 2 - 1].min() > 240 and seen[height // 2 + 1 :].max() < 15

    def test_a_damaged_tiff_writes_nothing_to_the_terminal(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        grey().save(tmp_path / "a.tif", compression="tiff_lzw")
        content = (tmp_path / "a.tif").read_bytes()
        for at in range(8, len(content), 5):
            (tmp_path / "a.tif").write_bytes(content[:at] + b"\xff" + content[at + 1 :])
            with contextlib.suppress(ValueError):
                read(tmp_path / "a.tif")
        assert capfd.readouterr().err == ""

    def test_a_picture_that_is_too_large_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(pictures, "MOST_BYTES", 1000)
        grey().save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"^a\.png: too large: 60 x 40 pixels"):
            read(tmp_path / "a.png")

    def test_a_picture_of_a_program_is_treated_like_a_file(self) -> None:
        seen = checked(transparent("RGBA"))
        assert isinstance(seen, Image.Image) and seen.mode == "RGB"
        with pytest.raises(ValueError, match="floating-point"):
            checked(Image.new("F", (4, 4)))


class TestFrames:
    OPTIONS: ClassVar[dict[str, Any]] = {"frames": 2, "size": 8}

    def test_of_the_cases(self) -> None:
        unit, whole = (prepared(case(f"04-frames/{name}.npy"), "frames", **self.OPTIONS) for name in ("unit", "bytes"))
        assert torch.allclose(unit, whole, atol=0.01)
        assert whole.mean().item() == pytest.approx(0.0502, abs=0.002)

    @pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0, 1023), (-128, 127), (0, 65535)])
    def test_other_ranges_are_refused_and_named(self, low: float, high: float) -> None:
        values = np.linspace(low, high, 2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
        encoder = build("encoder", {"name": "frames", **self.OPTIONS}).build()
        for kind in (np.float32, np.int64) if high > 1 else (np.float32, np.float64):
            with pytest.raises(ValueError, match=f"from {low:g} to {high:g}"):
                encoder.prepare(values.astype(kind))

    def test_a_dark_video_of_bytes_stays_dark(self) -> None:
        encoder = build("encoder", {"name": "frames", **self.OPTIONS}).build()
        dark = np.ones((2, 4, 4, 3), np.uint8)
        assert encoder.prepare(dark).max().item() == 1

    def test_which_frames_are_taken(self) -> None:
        video = (np.arange(10)[:, None, None, None] * np.ones((1, 4, 4, 3)) * 20).astype(np.uint8)

        def taken(given: Any, **options: Any) -> list[int]:
            encoder = build("encoder", {"name": "frames", "frames": 3, "size": 8, **options}).build()
            seen = encoder.prepare(given)
            return [round(value / 20) for value in seen[:, 0, 0, 0].tolist()]

        assert taken(video) == [0, 1, 2]
        assert taken(video[:2]) == [0, 1, 1]
        assert taken(video, longer="spread") == [0, 4, 9]
        assert taken(Series(video, 25.0), fps=12.5) == [0, 2, 4]
        assert taken(Series(video, 2.0), fps=1.0) == [0, 2, 4]
        assert taken(Series(video, 100.0), fps=5.0) == [0, 9, 9]
        with pytest.raises(ValueError, match="its rate is not known"):
            taken(video, fps=5.0)

    def test_wrong_shapes_come_with_a_hint(self) -> None:
        encoder = build("encoder", {"name": "frames", **self.OPTIONS}).build()
        for shape, hint in (((2, 3, 8, 8), r"\[T, 3, H, W\]"), ((2, 8, 8), "grey"), ((2, 8, 8, 1), "grey")):
            with pytest.raises(ValueError, match=hint):
                encoder.prepare(np.zeros(shape, np.uint8))


class TestSounds:
    @pytest.mark.parametrize("name", ["1s", "300ms"])
    def test_silence_of_the_cases(self, name: str) -> None:
        assert prepared(case(f"05-silence/{name}.wav"), "spectrogram").abs().max() < 1e-3

    @pytest.mark.parametrize("options", [{}, {"n_mels": 16}, {"rate": 16000, "seconds": 3.0}], ids=str)
    @pytest.mark.parametrize("level", [0.0, 0.5, -1.0])
    @pytest.mark.parametrize("channels", CHANNELS)
    def test_silence_is_as_blank(self, options: dict[str, Any], level: float, channels: int) -> None:
        encoder = build("encoder", {"name": "spectrogram", **options}).build()
        silent = encoder.prepare(Sound(np.zeros((11025, channels), np.float32), 11025))
        assert torch.equal(silent, encoder.blank())
        steady = encoder.prepare(Sound(np.full((11025, channels), level, np.float32), 11025))
        assert steady.isfinite().all()

    def test_an_odd_rate_of_the_cases(self) -> None:
        sound = read(case("13-odd-rate/44101Hz.wav"))
        assert isinstance(sound, Sound)
        encoder = build("encoder", {"name": "spectrogram"}).build()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        odd, even = encoder.prepare(sound), encoder.prepare(Sound(sound.samples, 44100))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
        assert odd.isfinite().all()
        assert np.corrcoef(odd.flatten(), even.flatten())[0, 1] > 0.95

    @pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 22050, 22051, 44100, 47999, 96000, 192001])
    def test_a_tone_stays_where_it_is(self, rate: int) -> None:
        tone = np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate).astype(np.float32)
        made = resampled(tone, rate, 8000, 8000)
        expected = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
        assert made.dtype == np.float32 and made.shape == (8000,)
        assert np.corrcoef(made[100:-100], expected[100:-100])[0, 1] > 0.999

    def test_what_lies_behind_is_not_looked_at(self) -> None:
        values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
        assert np.allclose(resampled(values, 44100, 8000, 800), resampled(values, 44100, 8000)[:800], atol=1e-5)

    @pytest.mark.parametrize("rate", [4_294_967_295, 1_999_999_999])
    def test_an_impossible_rate_is_named(self, rate: int) -> None:
        encoder = build("encoder", {"name": "spectrogram"}).build()
        with pytest.raises(ValueError, match=re.escape(f"{rate:g} Hz")):
            encoder.prepare(Sound(np.ones((100, 1), np.float32), rate))

    def test_a_rate_of_one_takes_no_memory(self) -> None:
        encoder = build("encoder", {"name": "spectrogram"}).build()
        assert (
            encoder.prepare(Sound(np.random.default_rng(0).normal(size=(10**6, 1)).astype(np.float32), 1))
            .isfinite()
            .all()
        )

    def test_channels_in_opposite_phase_do_not_cancel(self) -> None:
        tone = np.sin(np.arange(8000, dtype=np.float32))
        encoder = build("encoder", {"name": "spectrogram"}).build()
        alone = encoder.prepare(Sound(tone[:, None], 8000))
        opposite = Sound(np.stack([tone, -tone], axis=1), 8000)
        assert torch.allclose(encoder.prepare(opposite), alone, atol=1e-4)
        louder = Sound(np.stack([tone, -0.9 * tone, 0 * tone], axis=1), 8000)
        assert np.array_equal(louder.mono(), tone)
        assert np.allclose(Sound(np.stack([tone, 0 * tone], axis=1), 8000).mono(), tone / 2)

    @pytest.mark.parametrize("subtype", sorted(soundfile.available_subtypes("WAV")))
    def test_every_encoding_of_wav_is_the_same_sound(self, subtype: str, tmp_path: Path) -> None:
        tone = 0.5 * np.sin(np.arange(8000) / 5)
        try:
            soundfile.write(tmp_path / "a.wav", tone, 8000, subtype=subtype)
        except soundfile.LibsndfileError:
            pytest.skip(f"libsndfile does not write {subtype} here")
        sound = read(tmp_path / "a.wav")
        assert isinstance(sound, Sound) and sound.rate == 8000
        count = min(len(tone), len(sound.samples))
        assert np.corrcoef(sound.mono()[:count], tone[:count])[0, 1] > 0.95
        if subtype != "GSM610":  # which overshoots
            assert np.abs(sound.samples).max() == pytest.approx(0.5, abs=0.1)

    def test_decoders_write_nothing_to_standard_error(self, capfd: pytest.CaptureFixture[str]) -> None:
        damaged = case("19-wrong-content/sounds/damaged.mp3")
        try:
            read(damaged)
        except ValueError as error:
            assert str(damaged.parent) not in str(error)
        assert capfd.readouterr().err == ""


class TestTexts:
    def test_of_the_cases(self) -> None:
        ids = {path.stem: set(prepared(path, "text").tolist()) - {0} for path in
               (case(f"07-no-spaces/{name}.txt") for name in "ab")}  # fmt: skip
        assert len(ids["a"]) >= 5 and len(ids["a"] & ids["b"]) >= 5
        nfc, nfd = (prepared(case(f"08-marks/{name}.txt"), "text") for name in ("nfc", "nfd"))
        assert torch.equal(nfc, nfd)
        assert int((prepared(case("08-marks/hindi.txt"), "text") != 0).sum()) == 4

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Don't stop, 2nd try", ["don", "t", "stop", "2nd", "try"]),
            ("STRASSE Straße", ["strasse", "strasse"]),
            ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
            ("blue 椅子 chair", ["blue", "椅", "子", "chair"]),
            ("สวัสดี", ["ส", "วั", "ส", "ดี"]),
            ("안녕 세상", ["안녕", "세상"]),
            ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
            ("می‌خواهم", ["می‌خواهم"]),
            ("வணக்கம் உலகம்", ["வணக்கம்", "உலகம்"]),
            ("snake_case", ["snake_case"]),
        ],
    )
    def test_words_of_many_scripts(self, text: str, expected: list[str]) -> None:
        assert tokens(text, None) == expected

    def test_ngrams_run_over_signs_without_spaces(self) -> None:
        assert tokens("東京タ", 2) == ["<東", "東京", "京タ", "タ>"]

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    def test_unicode_forms_are_one_before_any_encoder(self, form: str, tmp_path: Path) -> None:
        written = unicodedata.normalize(form, "Café Ångström 안녕")
        (tmp_path / "a.txt").write_text(written, encoding="utf-8")
        assert read(tmp_path / "a.txt") == Value(written).read() == checked(written)
        assert read(tmp_path / "a.txt") == unicodedata.normalize("NFC", written)

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_marked_encodings_are_read(self, encoding: str, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("Müller 椅子", encoding=encoding)
        assert read(tmp_path / "a.txt") == "Müller 椅子"

    @pytest.mark.parametrize("content", [b"M\xfcller", b"\x81\x82"])
    def test_others_are_not_guessed(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(ValueError, match=r"^a\.txt: not UTF-8"):
            read(tmp_path / "a.txt")

    @pytest.mark.parametrize("text", ["", "  \n\t", "\ufeff"])
    def test_an_empty_text_is_none(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="the text is empty"):
            read(tmp_path / "a.txt")

    def test_a_text_without_words_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no words"):
            build("encoder", {"name": "text"}).build().prepare("... !?")


class TestSignals:
    def test_of_the_cases(self) -> None:
        folder = "23-signals"
        assert "transposed" in refused(case(f"{folder}/transposed.npy"), "signal", channels=3, length=50)
        assert "complex" in refused(case(f"{folder}/complex.npy"), "signal", channels=3, length=50)
        assert prepared(case(f"{folder}/vector.npy"), "signal", channels=1, length=50).shape == (1, 50)

    @pytest.mark.parametrize("kind", ["complex128", "U5", "datetime64[s]", "V8"])
    def test_other_kinds_of_numbers_are_refused(self, kind: str, tmp_path: Path) -> None:
        array = np.zeros((50, 3), kind)
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(ValueError, match="real numbers"):
            read(tmp_path / "a.npy")
        with pytest.raises(ValueError, match="real numbers"):
            build("encoder", {"name": "signal"}).build().prepare(array)

    @pytest.mark.parametrize("kind", ["bool", "int8", "uint16", "int64", "float16", "float64"])
    def test_real_numbers_keep_their_values(self, kind: str, tmp_path: Path) -> None:
        values = (np.arange(150).reshape(50, 3) % 2).astype(kind)
        np.save(tmp_path / "a.npy", values)
        assert torch.equal(prepared(tmp_path / "a.npy", "signal"), torch.from_numpy(values.astype(np.float32).T))

    def test_numbers_too_large_are_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.full((50, 3), 1e300))
        with pytest.raises(ValueError, match="not finite"):
            read(tmp_path / "a.npy")

    def test_another_rate_is_resampled(self) -> None:
        def window(rate: float, seconds: float = 1.0) -> Series:
            when = np.arange(round(rate * seconds)) / rate
            return Series(np.stack([np.sin(2 * np.pi * 3 * when), when], axis=1), rate)

        encoder = build("encoder", {"name": "signal", "channels": 2, "length": 100, "rate": 100.0}).build()
        own = encoder.prepare(window(100))
        for rate in (50, 200, 125):
            assert torch.allclose(encoder.prepare(window(rate))[0, 20:80], own[0, 20:80], atol=0.05)
        with pytest.raises(ValueError, match="a window of 100 samples is needed, not of 200"):
            encoder.prepare(window(100, 2.0))
        with pytest.raises(ValueError, match="its rate is not known"):
            encoder.prepare(window(100).values)

    def test_other_lengths_are_cut_or_padded_on_request(self) -> None:
        encoder = build(
            "encoder", {"name": "signal", "channels": 1, "length": 50, "other_lengths": "cut-and-pad"}
        ).build()
        long, short = np.arange(60.0)[:, None], np.arange(20.0)[:, None]
        assert encoder.prepare(long)[0].tolist() == list(range(50))
        assert encoder.prepare(short)[0].tolist() == [*range(20), *[19] * 30]


WRONG = {
    "a.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
    "b.wav": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
    "c.npy": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
    "d.jpg": (b"\n<!DOCTYPE HTML><html>404", "web page"),
    "e.mp3": (b"<html><body>", "web page"),
    "f.jpg": (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC"),
    "g.jpeg": (b"\0\0\0\x18ftypavif\xff", "AVIF"),
    "h.png": (b"%PDF-1.7", "PDF"),
    "i.wav": (b"\x89PNG\r\n\x1a\n" + bytes(30), "a picture"),
    "j.png": (b"RIFF\x24\0\0\0WAVEfmt ", "a recording"),
    "k.npy": (b"\x80\x04\x95", "pickled"),
    "l.gif": (b"", "an empty file"),
    "m.bmp": (bytes(1000), "a file of zeros"),
    "n.png": (bytes(128) + b"DICM", "DICOM"),
    "o.png": (b"<?xml version='1.0'?><Error>", "XML"),
    "p.flac": (b'{"error": "not found"}', "JSON"),
}


class TestWrongContent:
    @pytest.mark.parametrize("name", WRONG)
    def test_what_a_file_really_is(self, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        content, what = WRONG[name]
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=what) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{name}: ") and str(tmp_path) not in str(caught.value)
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("name", ["pointer.jpg", "page.png", "heic.jpg"])
    def test_of_the_cases(self, name: str) -> None:
        file = case(f"19-wrong-content/pictures/{name}")
        with pytest.raises(ValueError, match=r"Git LFS|HTML|HEIC") as caught:
            read(file)
        assert str(file.parent) not in str(caught.value)

    def test_a_picture_under_another_pictures_name_is_read(self, tmp_path: Path) -> None:
        grey().save(tmp_path / "a.png")
        (tmp_path / "a.png").rename(tmp_path / "a.jpg")
        assert np.array_equal(np.asarray(read(tmp_path / "a.jpg")), ramp())  # type: ignore[arg-type]

    def test_a_file_that_is_cut_off_says_so(self, tmp_path: Path) -> None:
        grey().save(tmp_path / "a.png")
        (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
        with pytest.raises(ValueError, match=r"a\.png: .*truncated"):
            read(tmp_path / "a.png")
