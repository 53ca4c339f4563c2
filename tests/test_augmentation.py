"""Augmentation: each kind does what its name says, and its randomness depends on nothing but its purpose."""

import colorsys
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import RAW, experiment, make_batch, make_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cli import call
from torch import Tensor

from client.site import Site
from client.train import train
from common.build import build_model
from common.config.component import build
from common.data.augmentation import augmented
from common.data.batches import batches
from common.data.loader import load
from common.data.shard import Shard
from common.encoders.base import Encoder
from common.encoders.image import ImageEncoder
from common.encoders.spectrogram import SpectrogramEncoder
from common.errors import ConfigError
from common.seeding import seeded
from common.trained.predictor import load_model
from common.types import Batch, Origin

COLOUR = {"name": "image", "size": 16, "channels": 3, "width": 4}
SOUND = {"name": "spectrogram", "n_mels": 16, "width": 4}
SIGNAL = {"name": "signal", "width": 4}
ALL = {
    "image": {"crop": 0.5, "flip": True, "brightness": 0.4, "contrast": 0.4},
    "audio": {"shift": 0.1, "gain": 0.5, "frequency_mask": 4, "time_mask": 0.1},
}


def encoder(options: dict[str, Any], **augment: Any) -> Encoder:
    made: Encoder = build("encoder", {**options, "augment": augment}).build()
    return made


def variants(of: Encoder, prepared: Tensor, count: int = 40) -> Iterator[Tensor]:
    """Variants of a prepared value with as many seeds."""
    for seed in range(count):
        with seeded(seed, "variants"):
            yield of.augment(prepared)


def drawn(*shape: int) -> Tensor:
    """Random pixels."""
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(1)).byte()


def numbers(*shape: int) -> Tensor:
    """Random numbers without a zero."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) + 9


def span(changed: Tensor) -> int:
    """The length of the one span of true values; fails if there are several."""
    places = changed.nonzero()[:, 0].tolist()
    assert places == list(range(places[0], places[-1] + 1)) if places else True
    return len(places)


class TestPictures:
    def test_a_flip_mirrors_half_of_the_pictures(self) -> None:
        picture = drawn(3, 16, 16)
        made = Counter(
            "same" if torch.equal(one, picture) else "mirrored" if torch.equal(one, picture.flip(-1)) else "other"
            for one in variants(encoder(COLOUR, flip=True), picture, 60)
        )
        assert made.keys() == {"same", "mirrored"}
        assert 15 < made["mirrored"] < 45

    def test_a_crop_shows_a_part_with_at_least_the_smallest_area(self) -> None:
        ramp = torch.linspace(0, 255, 64).round().byte().expand(64, 64)
        picture = torch.stack([ramp, ramp.T, torch.full((64, 64), 77).byte()])
        shares, places = [], set()
        for one in variants(encoder({**COLOUR, "size": 64}, crop=0.3), picture):
            wide, high = (int(one[0, 9, -1]) - int(one[0, 9, 0])) / 255, (int(one[1, -1, 9]) - int(one[1, 0, 9])) / 255
            assert (one[0].diff(dim=1).int() >= 0).all()
            assert (one[2] == 77).all()
            assert 0.7 < wide / high < 1.43
            shares.append(wide * high)
            places.add(int(one[0, 9, 0]))
        assert 0.26 < min(shares) < 0.5 and 0.7 < max(shares) <= 1
        assert len(places) > 10

    def test_brightness_multiplies_all_pixels(self) -> None:
        flat = torch.full((3, 16, 16), 100).byte()
        levels = [one.unique().tolist() for one in variants(encoder(COLOUR, brightness=0.4), flat)]
        assert all(len(level) == 1 and 60 <= level[0] <= 140 for level in levels)
        assert len({level[0] for level in levels}) > 20

    def test_contrast_scales_the_distances_from_the_mean_grey(self) -> None:
        halves = torch.cat([torch.full((3, 16, 8), 80), torch.full((3, 16, 8), 120)], 2).byte()
        for one in variants(encoder(COLOUR, contrast=0.5), halves):
            assert one.float().mean() == pytest.approx(100, abs=1.5)
            assert 18 <= int(one.max()) - int(one.min()) <= 62
        flat = torch.full((3, 16, 16), 90).byte()
        assert all((one - 90.0).abs().max() <= 1 for one in variants(encoder(COLOUR, contrast=0.5), flat, 5))

    def test_saturation_and_hue_keep_grey_and_change_colour(self) -> None:
        grey, red = (
            torch.full((3, 16, 16), 90).byte(),
            torch.tensor([200, 50, 50]).byte()[:, None, None].expand(3, 16, 16),
        )
        for option, place in (("saturation", 1), ("hue", 0)):
            chosen = encoder(COLOUR, **{option: 0.3})
            assert all((one - 90.0).abs().max() <= 1 for one in variants(chosen, grey, 5))
            seen = [colorsys.rgb_to_hsv(*(one[:, 0, 0] / 255).tolist()) for one in variants(chosen, red)]
            assert len({round(colour[place], 2) for colour in seen}) > 10
            turns = [min(hue, 1 - hue) for hue, _, _ in seen]
            assert max(turns) <= (0.31 if option == "hue" else 0.01)

    def test_all_frames_of_a_video_change_in_the_same_way(self) -> None:
        chosen = encoder({"name": "frames", "size": 16}, crop=0.3, flip=True, brightness=0.4, hue=0.2)
        for one in variants(chosen, drawn(1, 3, 16, 16).expand(3, 3, 16, 16), 10):
            assert torch.equal(one[0], one[1]) and torch.equal(one[0], one[2])


class TestSounds:
    def test_a_shift_moves_the_frames_and_fills_with_the_mean(self) -> None:
        spectrogram = numbers(1, 16, 61)
        moved = set()
        for one in variants(encoder(SOUND, shift=0.1), spectrogram):  # 0.1 s are 6 frames of 128 samples at 8000 Hz
            by = next(k for k in range(-6, 7) if (one[0, 0, max(k, 0)] == spectrogram[0, 0, max(-k, 0)]))
            assert torch.equal(one[..., max(by, 0) : 61 + min(by, 0)], spectrogram[..., max(-by, 0) : 61 - max(by, 0)])
            assert (one != 0).any(1).sum() == 61 - abs(by)
            moved.add(by)
        assert {-6, 6} <= moved and len(moved) > 8

    @pytest.mark.parametrize(
        ("option", "value", "dim", "longest"), [("frequency_mask", 4, 1, 4), ("time_mask", 0.08, 2, 5)]
    )
    def test_a_mask_covers_one_span_of_frequencies_or_frames(
        self, option: str, value: float, dim: int, longest: int
    ) -> None:
        spectrogram, lengths = numbers(1, 16, 61), set()
        for one in variants(encoder(SOUND, **{option: value}), spectrogram):
            hidden = (one == 0).all(3 - dim)[0]
            lengths.add(span(hidden))
            assert torch.equal(one, spectrogram.where(~hidden.unsqueeze(2 - dim), 0))
        assert lengths == set(range(longest + 1))

    def test_a_mask_of_float16_is_exact_in_a_long_clip(self) -> None:
        long = {**SOUND, "seconds": 60.0, "stored": "float16"}
        spectrogram = numbers(1, 16, 3749).half()
        for one in variants(encoder(long, time_mask=40.0), spectrogram, 10):
            hidden = (one == 0).all(1)[0]
            span(hidden)
            assert one.dtype == torch.float16 and torch.equal(one, spectrogram.where(~hidden, 0))

    def test_a_gain_moves_the_mean_and_no_difference(self) -> None:
        spectrogram = numbers(1, 16, 61)
        gains = [one - spectrogram for one in variants(encoder(SOUND, gain=0.5), spectrogram)]
        assert all((gain - gain.mean()).abs().max() < 1e-5 for gain in gains)
        means = [float(gain.mean()) for gain in gains]
        assert -0.5 <= min(means) < -0.3 and 0.3 < max(means) <= 0.5


class TestSignals:
    def test_scaling_multiplies_a_window_by_one_factor(self) -> None:
        window = numbers(3, 50)
        factors = torch.stack([one / window for one in variants(encoder(SIGNAL, scaling=0.2), window, 200)])
        assert (factors - factors[:, :1, :1]).abs().max() < 1e-5
        assert float(factors[:, 0, 0].mean()) == pytest.approx(1, abs=0.05)
        assert float(factors[:, 0, 0].std()) == pytest.approx(0.2, rel=0.2)

    def test_jitter_is_noise_of_its_deviation(self) -> None:
        window = numbers(3, 50)
        noise = torch.stack([one - window for one in variants(encoder(SIGNAL, jitter=0.3), window)])
        assert float(noise.std()) == pytest.approx(0.3, rel=0.05)
        assert abs(float(noise.mean())) < 0.02
        assert len(noise.unique()) > 5000

    def test_a_mask_covers_one_span_of_all_channels(self) -> None:
        window, lengths = numbers(3, 50), set()
        for one in variants(encoder(SIGNAL, time_mask=7), window, 80):
            hidden = (one == 0).all(0)
            lengths.add(span(hidden))
            assert torch.equal(one, window.where(~hidden, 0))
        assert lengths == set(range(8))


class TestTexts:
    def test_tokens_are_left_out_with_their_probability_and_one_stays(self) -> None:
        chosen = {"name": "text", "width": 4}
        ids = torch.tensor([*range(1, 11), 0, 0, 0, 0, 0, 0])
        made = list(variants(encoder(chosen, token_dropout=0.3), ids, 300))
        assert all(((one == ids) | (one == 0)).all() for one in made)
        assert float(torch.stack(made)[:, :10].ne(0).float().mean()) == pytest.approx(0.7, abs=0.04)
        left = [one.nonzero()[:, 0].tolist() for one in variants(encoder(chosen, token_dropout=0.999), ids)]
        assert all(left) and {len(one) for one in left} <= {1, 2} and len({one[0] for one in left}) > 5


def pair() -> dict[str, Encoder]:
    return {
        "image": encoder({"name": "image", "size": 8, "width": 4}, crop=0.3, flip=True, brightness=0.5),
        "signal": encoder({**SIGNAL, "channels": 1, "length": 8}, jitter=1.0),
        "text": build("encoder", {"name": "text"}).build(),
    }


def examples(rows: int, missing: float = 0.0) -> Batch:
    numbered = make_batch({"signal": (1, 8), "text": (16,)}, rows, 2, missing=missing)
    inputs = {**numbered.inputs, **make_pictures(["image"], rows, 2).inputs}
    origin = {**numbered.origin, "image": numbered.origin["signal"].flip(0)}
    return Batch(inputs, origin, numbered.labels, torch.arange(rows) * 977 + 5)


@settings(max_examples=25)
@given(st.integers(1, 9), st.floats(0, 0.9), st.data())
def test_a_variant_depends_only_on_its_purpose(rows: int, missing: float, data: st.DataObject) -> None:
    batch, encoders = examples(rows, missing), pair()
    index = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=9)))
    before = torch.get_rng_state()
    whole, part = (augmented(one, encoders, 7, 1, 0, "clinic") for one in (batch, batch.rows(index)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(whole.keys, batch.keys)
    for m in batch.modalities:
        assert torch.equal(whole.inputs[m][index], part.inputs[m])
        gone = ~batch.has(m)
        assert torch.equal(whole.inputs[m][gone], batch.inputs[m][gone])
    assert whole.inputs["text"] is batch.inputs["text"]


@pytest.mark.parametrize("purpose", [(8, 1, 0, "a"), (7, 2, 0, "a"), (7, 1, 1, "a"), (7, 1, 0, "b")])
def test_another_seed_round_epoch_or_site_gives_other_variants(purpose: tuple[Any, ...]) -> None:
    batch, encoders = examples(6), pair()
    one, other = augmented(batch, encoders, 7, 1, 0, "a"), augmented(batch, encoders, *purpose)
    for m in ("image", "signal"):
        assert (one.inputs[m] != other.inputs[m]).flatten(1).any(1).all()
        assert (one.inputs[m] != batch.inputs[m]).flatten(1).any(1).all()


def test_equal_values_of_two_examples_get_different_variants_and_generated_ones_too() -> None:
    batch = examples(2)
    same = Batch({"signal": batch.inputs["signal"][:1].expand(2, 1, 8)},
                 {"signal": torch.tensor([int(Origin.OBSERVED), int(Origin.GENERATED)])}, batch.labels)  # fmt: skip
    first, second = augmented(same, pair(), 7).inputs["signal"]
    assert not torch.equal(first, second)
    assert not torch.equal(second, same.inputs["signal"][1])


def test_without_augmentation_a_batch_stays_the_same_object() -> None:
    batch = examples(3)
    assert augmented(batch, {m: build("encoder", {"name": "text"}).build() for m in batch.modalities}, 7) is batch


def test_each_batch_is_changed_before_it_is_used() -> None:
    def marked(batch: Batch) -> Batch:
        return augmented(batch, pair(), 7)

    found = torch.cat([batch.inputs["signal"] for batch in batches(examples(7), 3, change=marked)])
    assert torch.equal(found, marked(examples(7)).inputs["signal"])


def augmenting(**changes: Any) -> dict[str, Any]:
    return {f"model__encoders__{m}": {**RAW["model"]["encoders"][m], "augment": ALL[m]} for m in ALL} | changes


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[type[Encoder]]:
    """By encoder, the number of values that were augmented. Fails outside of training."""
    seen = Counter[type[Encoder]]()

    def counting(kind: type[Encoder], original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def augment(self: Encoder, prepared: Tensor) -> Tensor:
            assert torch.is_grad_enabled() and self.training
            seen[kind] += 1
            return original(self, prepared)

        return augment

    for kind in (ImageEncoder, SpectrogramEncoder):
        monkeypatch.setattr(kind, "augment", counting(kind, kind.augment))
    return seen


def test_only_training_examples_are_augmented_once_per_epoch(tiny_shards: Path, seen: Counter[type[Encoder]]) -> None:
    chosen = experiment(**augmenting(train__epochs=2))
    opened = Site(tiny_shards / "client-0").open(chosen)
    training, _ = opened.loaded.split(0.2, chosen.seed)
    train(opened.model, training, chosen, 1, "client-0")
    expected = {"audio": SpectrogramEncoder, "image": ImageEncoder}
    assert {kind: seen[kind] for m, kind in expected.items() if m in training.modalities} == {
        kind: 2 * int(training.has(m).sum()) for m, kind in expected.items() if m in training.modalities
    }


def test_training_without_augmentation_is_unchanged_by_an_empty_section(tiny_shards: Path) -> None:
    models = []
    for sections in ({}, {m: {} for m in ALL}, ALL):
        encoders = {
            m: {**RAW["model"]["encoders"][m], **({"augment": sections[m]} if m in sections else {})} for m in ALL
        }
        chosen = experiment(model__encoders=encoders)
        model = build_model(chosen, 10)
        loaded = load(Shard.open(tiny_shards / "client-0"), {m: model.encoder(m) for m in model.modalities})
        train(model, loaded.examples, chosen, 1, "client-0")
        models.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_a_run_with_every_augmentation_repeats_and_its_model_loads(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Counter[type[Encoder]]
) -> None:
    monkeypatch.chdir(tmp_path)
    encoders = {m: {**RAW["model"]["encoders"][m], "augment": ALL[m]} for m in ALL}
    (tmp_path / "experiment.yaml").write_text(
        yaml.safe_dump({**RAW, "model": {"encoders": encoders}, "federation": {"rounds": 1}})
    )
    for name in ("one", "other"):
        run = ("run", "experiment.yaml", "--engine", "inprocess", "--shards", tiny_shards, "--run-dir", name)
        assert call(*run) == 0
        assert json.loads((tmp_path / name / "summary.json").read_text())["status"] == "completed"
    assert min(seen.values()) > 0 and seen.keys() == {ImageEncoder, SpectrogramEncoder}
    one, other = (load_model(tmp_path / name).model.state_dict() for name in ("one", "other"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({**COLOUR, "channels": 1, "augment": {"hue": 0.1}}, "grey pictures have no saturation and no hue"),
        ({**COLOUR, "augment": {"crop": 1.5}}, "augment.crop: .*less than or equal to 1"),
        (
            {**COLOUR, "augment": {"flop": True}},
            "augment.flop: unknown option 'flop'; known: crop, .*did you mean 'flip'",
        ),
        ({**SOUND, "augment": {"frequency_mask": 16}}, "augment.frequency_mask is 16, there are 16 frequencies"),
        ({**SOUND, "augment": {"shift": 2.0}}, "augment.shift is 2 s, a frame is 0.016 s and the spectrogram 0.976 s"),
        ({**SOUND, "augment": {"time_mask": 0.001}}, "augment.time_mask is 0.001 s, a frame is 0.016 s"),
        ({**SIGNAL, "augment": {"time_mask": 50}}, "augment.time_mask is 50, a window has 50 samples"),
        ({"name": "text", "augment": {"token_dropout": 1.0}}, "augment.token_dropout: .*less than 1"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(model__encoders__image=options)
