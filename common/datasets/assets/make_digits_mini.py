"""Makes digits_mini.zip: the English digits spoken by espeak-ng in many voices, speeds and pitches.

    apt-get install espeak-ng && python common/datasets/assets/make_digits_mini.py

The same release of espeak-ng gives the same bytes.
"""

import argparse
import hashlib
import io
import json
import subprocess
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ACCENTS = ["en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan", "en-gb-x-gbcwmd"]
VARIANTS = ["m1", "m3", "m5", "m7", "f1", "f2", "f4"]
VOICES = [f"{accent}+{variant}" for accent, variant in product(ACCENTS, VARIANTS)]
TAKES = 3
RATE, ESPEAK_RATE, SECONDS = 8000, 22050, 0.8
SILENCE = 0.02  # of the peak
EPOCH = (2026, 1, 1, 0, 0, 0)
LICENSE = """Recordings of the words for the ten digits, synthesised with espeak-ng by make_digits_mini.py.
They are released under the Apache License 2.0, like the project they come with.
"""


def main() -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("digits_mini.zip"))
    out: Path = parser.parse_args().out
    lines = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for voice, digit, take in product(VOICES, range(10), range(TAKES)):
            speed, pitch = delivery(voice, digit, take)
            name = f"clips/{digit}_{voice}_{take}.flac"
            add(archive, name, flac(speak(WORDS[digit], voice, speed, pitch)))
            about = {"file_name": name, "digit": digit, "voice": voice, "speed": speed, "pitch": pitch}
            lines.append(json.dumps(about))
        add(archive, "metadata.jsonl", "\n".join(lines).encode() + b"\n")
        add(archive, "LICENSE.txt", LICENSE.encode())
    print(f"{len(lines)} clips of {len(VOICES)} voices, {out.stat().st_size} bytes")


def add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a file with a fixed date, so that the archive's bytes depend only on its content."""
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)


def delivery(voice: str, digit: int, take: int) -> tuple[int, int]:
    """The speed (words per minute) and pitch (0..99) of a take, a function of voice, digit and take."""
    digest = hashlib.sha256(f"{voice} {digit} {take}".encode()).digest()
    return 130 + int.from_bytes(digest[:2], "big") % 91, 20 + int.from_bytes(digest[2:4], "big") % 61


def speak(word: str, voice: str, speed: int, pitch: int) -> NDArray[np.float64]:
    """Samples [T] at 8 kHz, without silence at both ends, with a peak of 0.9 and at most 0.8 s long."""
    # The name of British English in espeak-ng 1.51 is "en"; after "en-gb" it ignores the variant.
    command = ["espeak-ng", "-v", voice.replace("en-gb+", "en+"), "-s", str(speed), "-p", str(pitch), "--stdout", word]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav))
    if rate != ESPEAK_RATE:
        raise ValueError(f"espeak-ng gave {rate} Hz for {voice}")
    samples = resample_poly(samples, 160, 441)
    loud = np.flatnonzero(np.abs(samples) > SILENCE * np.abs(samples).max())
    samples = samples[loud[0] : loud[-1] + 1][: int(SECONDS * RATE)]
    return np.asarray(0.9 * samples / np.abs(samples).max())


def flac(samples: NDArray[np.float64]) -> bytes:
    """A 16-bit FLAC file of samples at 8 kHz with 9 significant bits, because the lower bits are only synthesis
    noise."""
    coarse = np.rint(samples * 255) * 128
    buffer = io.BytesIO()
    soundfile.write(buffer, coarse.astype(np.int16), RATE, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
