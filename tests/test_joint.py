"""The joint encoder: sizes, masks, and what stands for a missing modality."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_batch
from pydantic import ValidationError
from torch import Tensor

from common.config.component import build
from common.encoders.base import Encoder
from common.encoders.image import ImageEncoder
from common.media.values import Raw
from common.models.joint import Joint, JointModel
from common.models.shared.attention import AttentionLayer, positions
from common.types import Batch, Origin

CLASSES = 4


class Words(Encoder):
    """Vectors of words, zeros after the last one; the features are their mean."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.length, self.width = length, width
        self.passes = 0

    def prepare(self, raw: Raw) -> Tensor:
        raise NotImplementedError

    def blank(self) -> Tensor:
        return torch.zeros(self.length, self.width)

    def forward(self, inputs: Tensor) -> Tensor:
        self.passes += len(inputs)
        return inputs.mean(1)

    def tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        real = inputs.any(2)
        real[:, 0] = True
        return inputs, real


def joint(lengths: dict[str, int], seed: int = 1, **options: Any) -> JointModel:
    torch.manual_seed(seed)
    chosen = Joint(**{"width": 8, "heads": 2, "joint_heads": 4, "depth": 2, **options})
    return chosen.build({m: Words(length, 6) for m, length in lengths.items()}, CLASSES).eval()


def words(lengths: dict[str, int], rows: int = 9, missing: float = 0.0) -> Batch:
    return make_batch({m: (length, 6) for m, length in lengths.items()}, rows, CLASSES, missing=missing)


def test_the_papers_sizes_give_the_papers_number_of_parameters() -> None:
    encoders = {"image": Words(5, 768), "text": Words(5, 768)}
    for classes, expected in ((102, 13_848_934), (200, 13_899_208)):
        model = build("model", {"name": "joint"}).build(encoders, classes)
        count = sum(value.numel() for value in model.parameters())
        assert count == expected
        assert 13.0e6 < count < 14.0e6  # 51.5 MiB of float32 in the paper are 13.5 million


def test_a_layer_is_pre_norm_attention_and_feed_forward_by_loops() -> None:
    torch.manual_seed(0)
    layer, heads = AttentionLayer(6, 2).double(), 2
    q, kv = torch.randn(1, 2, 6).double(), torch.randn(1, 3, 6).double()
    real = torch.tensor([[True, False, True]])
    got = layer(q, kv, real)[0].detach()
    with torch.no_grad():
        asked = layer.query(layer.attention_norm(q))[0]
        keys, values = layer.keys_values(layer.attention_norm(kv))[0].split(6, dim=1)
        for i in range(2):
            mixed = []
            for h in range(heads):
                part = slice(3 * h, 3 * h + 3)
                scores = {j: math.exp(float(asked[i, part] @ keys[j, part]) / math.sqrt(3)) for j in (0, 2)}
                mixed.append(sum(scores[j] / sum(scores.values()) * values[j, part] for j in (0, 2)))
            x = q[0, i] + layer.out(torch.cat(mixed))
            torch.testing.assert_close(got[i], x + layer.feed_forward(layer.forward_norm(x)))


def test_positions_by_hand() -> None:
    table = positions(4, 6)
    for t in range(4):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert float(table[t, 2 * i]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table[t, 2 * i + 1]) == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("lengths", [{"a": 4}, {"a": 4, "b": 7}, {"a": 3, "b": 5, "c": 1}])
def test_shapes_and_unit_vectors(lengths: dict[str, int]) -> None:
    model, batch = joint(lengths), words(lengths)
    joined = model.join(batch)
    width = 8 * len(lengths)
    assert joined.joint.shape == (9, width) and joined.logits.shape == (9, CLASSES)
    for vector in joined.single.values():
        assert vector.shape == (9, width)
        torch.testing.assert_close(vector.norm(dim=1), torch.ones(9))
    assert (joined.joint.norm(dim=1) <= 1 + 1e-6).all()
    assert torch.equal(model.represent(batch), joined.joint)
    assert torch.equal(model.represent_all(batch), torch.cat([*(joined.single[m] for m in lengths), joined.joint], 1))
    assert torch.equal(model.predict(batch), joined.logits)


def test_padding_inside_a_stream_changes_nothing() -> None:
    short, long = {"a": 3, "b": 5}, {"a": 6, "b": 5}
    batch = words(short)
    padded = Batch(
        {"a": torch.nn.functional.pad(batch.inputs["a"], (0, 0, 0, 3)), "b": batch.inputs["b"]},
        batch.origin,
        batch.labels,
    )
    model = joint(short)
    grown = joint(long)
    grown.load_state_dict(model.state_dict())
    # The features of Words are means over all places.
    for name in ("a", "b"):
        model.branches[name].pooled.weight.data.zero_()
        grown.branches[name].pooled.weight.data.zero_()
    torch.testing.assert_close(model.predict(batch), grown.predict(padded), rtol=1e-5, atol=1e-6)


def test_a_missing_modality_is_lent_tokens_and_vector_of_the_first_one_the_row_has() -> None:
    lengths = {"a": 4, "b": 4, "c": 4}
    model, batch = joint(lengths), words(lengths)
    for m in ("b", "c"):  # so that one modality's values are read alike in every slot
        model.branches[m].tokens.load_state_dict(model.branches["a"].tokens.state_dict())
        model.branches[m].pooled.load_state_dict(model.branches["a"].pooled.state_dict())
    for kept, copied in (("bc", {"a": "b"}), ("c", {"a": "c", "b": "c"}), ("ac", {"b": "a"})):
        filled = {m: batch.inputs[copied.get(m, m)] for m in "abc"}
        got, expected = model.join(batch.only(kept)), model.join(Batch(filled, batch.origin, batch.labels))
        torch.testing.assert_close(got.logits, expected.logits)
        for m in "abc":
            torch.testing.assert_close(got.single[m], expected.single[m])


def test_rows_do_not_depend_on_what_other_rows_miss() -> None:
    lengths = {"a": 3, "b": 5}
    model, batch = joint(lengths), words(lengths, rows=12, missing=0.5)
    whole = model.predict(batch)
    assert any((origin == Origin.MISSING).any() for origin in batch.origin.values())
    for i in range(len(batch)):
        torch.testing.assert_close(model.predict(batch.rows(torch.tensor([i])))[0], whole[i], rtol=1e-4, atol=1e-5)


def test_rows_without_any_modality_give_finite_values_and_gradients() -> None:
    lengths = {"a": 3, "b": 5}
    model, batch = joint(lengths).train(), words(lengths)
    nothing = torch.zeros(9, dtype=torch.int64)
    some = Batch(
        batch.inputs, {"a": nothing.clone().index_fill(0, torch.tensor([1, 4]), 2), "b": nothing}, batch.labels
    )
    for given in (some, batch.only([])):
        model.zero_grad()
        joined = model.join(given)
        assert joined.logits.isfinite().all() and joined.joint.isfinite().all()
        joined.logits.sum().backward()
        assert all(v.grad is None or v.grad.isfinite().all() for v in model.parameters())


def test_a_batch_without_rows_gives_none() -> None:
    lengths = {"a": 3, "b": 5}
    nothing = words(lengths).rows(torch.zeros(9, dtype=torch.bool))
    assert joint(lengths).eval().predict(nothing).shape == (0, CLASSES)


def test_only_rows_with_a_modality_pass_its_encoder_and_only_once() -> None:
    lengths = {"a": 3, "b": 5}
    model, batch = joint(lengths), words(lengths, rows=20, missing=0.4)
    model.predict(batch)
    for m in lengths:
        encoder = model.encoder(m)
        assert isinstance(encoder, Words)
        assert encoder.passes == int(batch.has(m).sum())


def test_an_encoder_without_tokens_of_its_own_is_passed_once() -> None:
    encoder = ImageEncoder(8, 1, "cnn", 6)
    features, tokens, real = encoder.pooled_and_tokens(torch.randint(256, (5, 1, 8, 8)).byte())
    assert torch.equal(features, tokens[:, 0]) and tokens.shape == (5, 1, 6) and real.all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"width": 20, "heads": 8}, "width is 20, it must be a multiple of heads, which is 8"),
        ({"width": 4, "heads": 4}, "a multiple of joint_heads, which is 8"),
        ({"width": 7}, "multiple of 2"),
    ],
)
def test_widths_that_heads_do_not_divide_are_refused(options: dict[str, int], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Joint(**options)


@pytest.mark.parametrize(("options", "scale"), [({}, 8**-0.5), ({"token_scale": 3.0}, 3.0)])
def test_tokens_are_scaled_before_positions_are_added(options: dict[str, float], scale: float) -> None:
    model, batch = joint({"a": 4}, **options), words({"a": 4})
    branch = model.branches["a"]
    expected = branch.tokens(batch.inputs["a"]) * scale + positions(4, 8)
    torch.testing.assert_close(model._stream(batch, "a")[0].tokens, expected)


def test_the_order_of_words_matters() -> None:
    model, batch = joint({"a": 3, "b": 5}), words({"a": 3, "b": 5})
    turned = Batch({**batch.inputs, "b": batch.inputs["b"].flip(1)}, batch.origin, batch.labels)
    assert not np.allclose(model.predict(batch).detach(), model.predict(turned).detach(), atol=1e-4)


def test_the_variant_predicts_incomplete_rows_from_the_mean_of_the_vectors_they_have() -> None:
    lengths = {"a": 3, "b": 5, "c": 2}
    model, batch = joint(lengths, incomplete="mean").eval(), words(lengths, rows=12, missing=0.4)
    found, lending = model.join(batch), joint(lengths).eval().join(batch)
    for i in range(len(batch)):
        has = [m for m in batch.modalities if batch.has(m)[i]]
        if len(has) == 3:
            torch.testing.assert_close(found.joint[i], lending.joint[i])
        else:
            own = [model.join(batch.only([m])).single[m][i] for m in has]
            torch.testing.assert_close(found.joint[i], torch.stack(own).mean(0))
    assert not torch.allclose(found.joint, lending.joint)
