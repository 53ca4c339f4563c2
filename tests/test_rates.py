"""Sampling rates that differ within a site, between sites, and from the encoder's."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from test_cli import call

from common.data.shard import Example, Media, ShardInfo, ShardWriter
from common.findings import Findings
from common.media.values import encode_array, encode_sound
from server.sites.attention import concerns
from server.sites.rates import different_rates, lower_rates, rates_of


def sound(rate: int, count: int = 3) -> Findings:
    return Findings(values=count, forms={f"sound, {rate} Hz, 1 channel": count})


def test_rates_of_forms() -> None:
    forms = {"sound, 44100 Hz, 2 channels": 3, "sound, 44100 Hz, 1 channel": 1, "signal, 3 channels, 50 per second": 2,
             "signal, 1 channel, 12.5 per second": 4, "signal, 2 channels, 1e+06 per second": 1,
             "signal, 3 channels": 9, "frames, 9 × 9, 25 per second": 7, "picture, 8000 × 50, L": 1}  # fmt: skip
    assert rates_of(Findings(values=9, forms=dict(list(forms.items())[:5]))) == {44100: 4, 50: 2, 12.5: 4, 1e6: 1}
    assert not rates_of(Findings(values=9, forms=dict(list(forms.items())[5:])))


def test_sites_with_different_rates_are_named() -> None:
    found = {
        "a": {"audio": sound(16000)},
        "b": {"audio": sound(8000, 2)},
        "c": {"audio": sound(16000), "text": Findings()},
    }
    (said,) = different_rates(found)
    assert said.startswith(
        "audio values have several sampling rates: 8000 Hz in 2 values at b; 16000 Hz in 6 values at a, c"
    )
    assert "no frequencies above 4000 Hz" in said
    assert not list(different_rates({"a": {"audio": sound(16000)}, "b": {"audio": sound(16000)}}))
    told = {site: {"findings": {m: one.model_dump() for m, one in own.items()}} for site, own in found.items()}
    assert [one.what for one in concerns(told, []) if not one.site] == [said]


def test_rates_below_the_encoders() -> None:
    assert list(lower_rates("audio", sound(8000), 8000)) == [] == list(lower_rates("audio", sound(44100), 8000))
    (said,) = lower_rates("audio", sound(8000), 16000.0)
    assert said.startswith("3 of 3 audio values have 8000 Hz, less than the 16000 Hz of the encoder")
    assert list(lower_rates("audio", sound(8000), None)) == []
    signal = Findings(values=4, forms={"signal, 3 channels, 25 per second": 4})
    (said,) = lower_rates("motion", signal, None)
    assert "have 25 Hz, and are not resampled, because the encoder has no rate" in said
    assert len(list(lower_rates("motion", signal, 50))) == 1


def shard(folder: Path, site: str, rates: list[int], signal_rate: float | None = None) -> Path:
    wave = np.random.default_rng(0).normal(size=4000).astype(np.float32) / 9
    examples = [
        Example(f"{site}{number}", "xy"[number % 2], {
            "audio": Media(lambda rate=rate, number=number: encode_sound(wave / (number + 1), rate), ".wav"),
            "motion": Media(lambda number=number: encode_array(wave[number : number + 50, None]), ".npy")})
        for number, rate in enumerate(rates)
    ]  # fmt: skip
    info = ShardInfo(site=site, classes=["x", "y"], modalities=["audio", "motion"],
                     rates={"motion": signal_rate} if signal_rate else {})  # fmt: skip
    ShardWriter(folder, info).write(examples)
    return folder


@pytest.mark.parametrize("rate", [None, 50.0, 100.0])
def test_inspect_warns(rate: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, other = shard(tmp_path / "a", "a", [8000, 8000, 16000], 50.0), shard(tmp_path / "b", "b", [44100] * 2, 25.0)
    motion = {"name": "signal", "channels": 1, "length": 50, "other_lengths": "mask", "windows": 2, "rate": rate}
    audio = {"name": "spectrogram", "rate": 16000, "seconds": 0.3}
    raw = {"name": "rates", "data": {"clients": 2}, "model": {"encoders": {"audio": audio, "motion": motion}},
           "method": "fedavg-heads", "federation": {"rounds": 1}, "train": {"lr": 0.01}}  # fmt: skip
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(raw))
    assert call("inspect", own, "--json", "--test", other, "--with", tmp_path / "e.yaml") == 0
    said = json.loads(capsys.readouterr().out)["attention"]
    assert any(
        "audio values have several sampling rates: 8000 Hz in 2 values; 16000 Hz in 1 value." in one for one in said
    )
    assert any("8000 Hz in 2 values at a; 16000 Hz in 1 value at a; 44100 Hz in 2 values at b" in one for one in said)
    assert any(
        "motion values have several sampling rates: 25 Hz in 2 values at b; 50 Hz in 3 values at a" in one
        for one in said
    )
    assert any("2 of 3 audio values have 8000 Hz, less than the 16000 Hz of the encoder" in one for one in said)
    lower = [one for one in said if "of 3 motion values" in one]
    if rate == 50:
        assert not lower
    else:
        (one,) = lower
        assert ("are not resampled" if rate is None else "less than the 100 Hz of the encoder") in one
