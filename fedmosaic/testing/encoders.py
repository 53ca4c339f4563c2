"""The contract of an encoder that is trained. Frozen encoders have no gradients, and so another contract."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.encoders.base import Encoder, EncoderOptions
from common.media.sounds import Sound
from common.media.table_row import TableRow
from common.media.values import Raw
from common.seeding import seeded
from fedmosaic.testing.devices import OnEveryDevice

RAWS: dict[str, Raw] = {
    "a picture": Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)),
    "frames": np.arange(2 * 12 * 10 * 3, dtype=np.float32).reshape(2, 12, 10, 3) % 256,
    "a signal": np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32),
    "a recording": Sound((np.random.default_rng(0).normal(size=(5000, 2)) / 9).astype(np.float32), 11025),
    "a text": "Nike Men Black T-Shirt",
    "a row": TableRow({"age": 63, "sex": "f"}),
}
"""A value of each kind that a shard can contain."""


class EncoderContract(OnEveryDevice):
    """Override the fixtures `options`, `value` and, if the encoder takes more kinds of values, `taken`."""

    @pytest.fixture
    def options(self) -> Any:
        """The encoder's options."""
        raise NotImplementedError

    @pytest.fixture
    def value(self) -> Any:
        """A raw value that the encoder takes."""
        raise NotImplementedError

    @pytest.fixture
    def taken(self, value: Any) -> set[str]:
        """The kinds of values in RAWS that the encoder takes."""
        dimensions = getattr(value, "ndim", None)
        return {
            kind for kind, raw in RAWS.items() if type(raw) is type(value) and getattr(raw, "ndim", None) == dimensions
        }

    @pytest.fixture
    def encoder(self, options: Any, device: torch.device) -> Encoder:
        """The encoder with random weights."""
        encoder: Encoder = options.build()
        return encoder.to(device)

    def test_shapes_and_gradients(self, options: Any, encoder: Encoder, value: Any, device: torch.device) -> None:
        assert isinstance(options, EncoderOptions)
        one = encoder.prepare(value)
        assert one.shape == encoder.blank().shape
        assert one.dtype == encoder.blank().dtype
        assert not encoder.blank().any()
        features = encoder(torch.stack([one, encoder.blank()]).to(device))
        assert features.shape == (2, encoder.width)
        assert features.dtype == torch.float32
        features.sum().backward()
        pooled, tokens, real = encoder.pooled_and_tokens(torch.stack([one, one]).to(device))
        assert tokens.shape == (2, real.shape[1], encoder.width)
        assert pooled.device == tokens.device == real.device == device
        assert all(parameter.grad is not None for parameter in encoder.parameters())

    def test_the_shape_of_a_value_is_known_without_memory(self, encoder: Encoder) -> None:
        with torch.device("meta"):
            blank = encoder.blank()
        assert (blank.shape, blank.dtype) == (encoder.blank().shape, encoder.blank().dtype)

    def test_prepare_is_a_function_of_the_value(self, encoder: Encoder, value: Any) -> None:
        assert torch.equal(encoder.prepare(value), encoder.prepare(value))

    def test_a_variant_has_the_same_shape_and_type(self, encoder: Encoder, value: Any) -> None:
        prepared = encoder.prepare(value)
        kept, variants = prepared.clone(), []
        for _ in range(2):
            with seeded(0, "augment"):
                variants.append(encoder.augment(prepared))
        assert torch.equal(prepared, kept)
        assert torch.equal(*variants)
        assert (variants[0].shape, variants[0].dtype) == (prepared.shape, prepared.dtype)
        assert encoder.augments or variants[0] is prepared

    def test_a_single_example_can_be_trained_on(self, encoder: Encoder, value: Any, device: torch.device) -> None:
        assert encoder.train()(encoder.prepare(value)[None].to(device)).isfinite().all()
        assert encoder.training

    def test_another_kind_of_value_is_a_value_error_that_says_so(self, encoder: Encoder, taken: set[str]) -> None:
        for kind, raw in RAWS.items():
            if kind not in taken:
                given = "" if isinstance(raw, np.ndarray) else type(raw).__name__  # for an array, its shape
                with pytest.raises(ValueError, match=f"needed, not {given}"):
                    encoder.prepare(raw)
