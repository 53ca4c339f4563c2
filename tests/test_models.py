"""Encoders, backbones, metrics and wire."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import experiment, make_batch
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from common.blocks import block_of, get_params, select, set_params
from common.build import build_model
from common.config.component import build, find, own_names
from common.encoders.shared.tower_options import TowerOptions
from common.errors import WireError
from common.exchange import wire
from common.media.sounds import Sound
from common.types import Batch
from fedmosaic.testing import EncoderContract, ModelContract
from fedmosaic.testing.encoders import RAWS

BACKBONES = ["cnn", "resnet18"]
PRETRAINED = {name for name in own_names("encoder") if issubclass(find("encoder", name), TowerOptions)} | {"mixed"}
"""See test_pretrained_encoders.py and test_frozen_encoders.py."""
TAKES = {"image": "a picture", "frames": "frames", "signal": "a signal", "spectrogram": "a recording", "text": "a text",
         "table": "a row"}  # fmt: skip
"""The kind of value, in RAWS, that each trained encoder takes."""
WITHOUT_BACKBONE = {"signal", "text", "table"}
AGE = {"age": {"type": "number", "unit": "years", "mean": 60.0, "std": 9.0}}
SEX = {"sex": {"type": "category", "values": ["f", "m"]}}
NEEDED: dict[str, Any] = {"table": {"columns": AGE | SEX}}
ENCODERS = [
    {"name": name, "width": 12, **NEEDED.get(name, {}), **({} if name in WITHOUT_BACKBONE else {"backbone": kind})}
    for name in own_names("encoder")
    if name not in PRETRAINED
    for kind in BACKBONES[: 1 if name in WITHOUT_BACKBONE else None]
] + [
    {"name": "image", "channels": 3, "augment": {"crop": 0.5, "flip": True, "brightness": 0.4, "hue": 0.2}},
    {"name": "frames", "augment": {"crop": 0.5, "flip": True, "contrast": 0.4, "saturation": 0.4}},
    {
        "name": "spectrogram",
        "stored": "float16",
        "augment": {"shift": 0.1, "frequency_mask": 9, "time_mask": 0.1, "gain": 1.0},
    },
    {"name": "signal", "stored": "float16", "augment": {"scaling": 0.1, "jitter": 0.1, "time_mask": 9}},
    {"name": "text", "augment": {"token_dropout": 0.5}},
    {"name": "table", "columns": AGE, "augment": {"cell_dropout": 0.5, "jitter": 0.1}},
    {"name": "table", "columns": SEX, "hidden": []},
]


@pytest.mark.parametrize("reference", ENCODERS, ids=lambda reference: "-".join(map(str, reference.values())))
class TestEveryTrainedEncoder(EncoderContract):
    @pytest.fixture
    def options(self, reference: dict[str, Any]) -> Any:
        return build("encoder", reference)

    @pytest.fixture
    def value(self, reference: dict[str, Any]) -> Any:
        return RAWS[TAKES[reference["name"]]]

    @pytest.fixture
    def taken(self, reference: dict[str, Any]) -> set[str]:
        return {TAKES[reference["name"]]}


class TestEveryModel(ModelContract):
    @pytest.fixture(params=own_names("model"))
    def architecture(self, request: pytest.FixtureRequest) -> Any:
        return build("model", {"name": request.param})


def test_a_spectrogram_of_the_papers_size_and_content() -> None:
    # CREMA-D in the paper: 3 s at 16 kHz, n_fft 512, hop 159 -> 257 x 299; AVE: 10 s -> 257 x 1004.
    for seconds, frames in ((3.0, 299), (10.0, 1004)):
        encoder = build(
            "encoder", {"name": "spectrogram", "rate": 16000, "seconds": seconds, "n_fft": 512, "hop": 159}
        ).build()
        assert encoder.blank().shape == (1, 257, frames)
    rate, hertz = 16000, 1000
    tone = np.sin(2 * np.pi * hertz * np.arange(16000) / rate).astype(np.float32)[:, None]
    picture = encoder.prepare(Sound(tone, rate))[0]
    assert picture[:, 50].argmax() == hertz * 512 // rate
    real = 1 + (16000 - 512) // 159
    assert (picture[:, real:] == 0).all()
    assert picture[:, :real].mean().abs() < 1e-4
    noise = np.random.default_rng(1).normal(size=16000).astype(np.float32)
    by_hand = np.log(np.abs(np.fft.rfft(noise[159 : 159 + 512] * np.hanning(513)[:512])) + 1e-7)
    column = encoder.prepare(Sound(noise[:, None], rate))[0][:, 1].double().numpy()
    assert np.corrcoef(column, by_hand)[0, 1] > 0.9999  # equal up to the clip's standardisation


def test_params_of_a_model_travel_by_block() -> None:
    model = build_model(experiment(), 10)
    params = get_params(model)
    assert {block_of(name) for name in params} == {"audio", "image", "shared"}
    assert {block_of(name) for name in select(params, ["audio"])} == {"audio", "shared"}
    other = build_model(experiment(seed=8), 10)
    before = get_params(other)
    set_params(other, select(params, ["audio"]))
    for name, value in get_params(other).items():
        assert torch.equal(value, before[name] if block_of(name) == "image" else params[name])


def test_shared_projectors_travel_once() -> None:
    shared = experiment(model__architecture={"name": "two-projector", "infiltration_projector": False})
    assert len(get_params(build_model(experiment(), 10))) - len(get_params(build_model(shared, 10))) == 4


def test_counters_of_batch_normalisation_do_not_travel_but_its_statistics_do() -> None:
    chosen = experiment(model__encoders__image={"name": "image", "size": 8, "backbone": "resnet18"})
    travelling = get_params(build_model(chosen, 10))
    assert any("running_mean" in name for name in travelling)
    assert not any("num_batches_tracked" in name for name in travelling)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9),
        st.lists(st.floats(width=32, allow_nan=False), max_size=5),
        max_size=4,
    )
)
def test_parameters_survive_the_wire(values: dict[str, list[float]]) -> None:
    params = {name: torch.tensor(value) for name, value in values.items() if name != "__metadata__"}
    record = wire.pack(params)
    assert len(record) == 1
    back = wire.unpack(record)
    assert back.keys() == params.keys()
    assert all(torch.equal(back[name], value) for name, value in params.items())
    rounded = wire.unpack(wire.pack(params, "bfloat16"))
    assert all(torch.equal(rounded[name], value.bfloat16().float()) for name, value in params.items())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_unpacked_or_refused_with_our_error(data: bytes) -> None:
    try:
        wire.unpack(ArrayRecord({"params": Array(np.frombuffer(data, np.uint8))}))
    except WireError:
        return


def test_columns_that_do_not_agree_are_refused_naming_both_sides() -> None:
    batch = make_batch({"a": (2,), "b": (3,)}, 4, 2)
    with pytest.raises(ValueError, match=r"inputs\['a'\] has 4 rows, labels have 3"):
        Batch(batch.inputs, batch.origin, batch.labels[:3])
    with pytest.raises(ValueError, match=r"\['a', 'b'\], origin has \['a'\]"):
        Batch(batch.inputs, {"a": batch.origin["a"]}, batch.labels)
