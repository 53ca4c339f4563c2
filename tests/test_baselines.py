"""The baselines against derivations that share no code with them."""

import math

import numpy as np
import pytest
import torch
from conftest import make_pictures

from client.methods.base import Round
from client.methods.fedavg_heads import FedAvgHeads
from client.methods.fedproto import FedProto
from client.methods.ogm_ge import Context, OgmGe, coefficients
from client.methods.pmr import Pmr, prototype_logits
from client.methods.shared.criterion import Criterion
from common.blocks import Params, get_params, set_params
from common.encoders.image import ImageEncoder
from common.models.late_fusion import LateFusionModel
from common.models.prototype_fusion import PrototypeFusionModel
from common.models.unimodal_heads import UnimodalHeadsModel
from common.types import Batch
from server.aggregation.block_mean import BlockMean

CLASSES = 3
NAMES = ("a", "v")
NOW = Round(2, frozenset(NAMES), 8)


def encoders(names: tuple[str, ...] = NAMES) -> dict[str, ImageEncoder]:
    torch.manual_seed(3)
    return {m: ImageEncoder(8, 1, "cnn", 5) for m in names}


def batch(rows: int = 20, missing: float = 0.0, seed: int = 0) -> Batch:
    return make_pictures(NAMES, rows, CLASSES, seed, missing)


def cross_entropy(logits: list[float], label: int) -> float:
    top = max(logits)
    return math.log(sum(math.exp(x - top) for x in logits)) + top - logits[label]


def probability(logits: list[float], label: int) -> float:
    return math.exp(-cross_entropy(logits, label))


class TestHeads:
    def test_loss_by_loops(self) -> None:
        model, data = UnimodalHeadsModel(encoders(), CLASSES).eval(), batch(missing=0.3)
        z = {m: model.encode(data, m) for m in NAMES}
        fused = model.fusion(torch.cat([z["a"], z["v"]], 1)).tolist()
        labels = data.labels.tolist()
        expected_fused = sum(cross_entropy(u, y) for u, y in zip(fused, labels, strict=True)) / len(labels)
        expected_heads = 0.0
        for m in NAMES:
            heads = model.branches[m].classifier(z[m]).tolist()
            own = [cross_entropy(u, y) for u, y, has in zip(heads, labels, data.has(m).tolist(), strict=True) if has]
            expected_heads += sum(own) / len(own)
        terms = FedAvgHeads(unimodal_weight=1.5).loss(model, data, Criterion())
        assert terms["fused"].item() == pytest.approx(expected_fused, rel=1e-5)
        assert terms["unimodal"].item() == pytest.approx(1.5 * expected_heads, rel=1e-5)

    def test_a_row_that_misses_something_is_predicted_by_its_heads(self) -> None:
        model, data = UnimodalHeadsModel(encoders(), CLASSES).eval(), batch(missing=0.4)
        logits = model.predict(data)
        for i in range(len(data)):
            has = [m for m in NAMES if data.has(m)[i]]
            z = {m: model.encode(data, m)[i : i + 1] for m in NAMES}
            if len(has) == 2:
                expected = model.fusion(torch.cat([z["a"], z["v"]], 1))[0]
            else:
                expected = model.branches[has[0]].classifier(z[has[0]])[0]
            assert torch.allclose(logits[i], expected, atol=1e-5)


class TestOgmGe:
    def test_coefficients_by_hand(self) -> None:
        # rho_a = 0.8 / 0.2 = 4, rho_v = 0.25
        got = coefficients({"a": 0.8, "v": 0.2}, alpha=0.3)
        assert got == {"a": pytest.approx(1 - math.tanh(0.3 * 4)), "v": 1.0}
        three = coefficients({"a": 0.6, "b": 0.3, "c": 0.3}, alpha=0.5)
        assert three == {"a": pytest.approx(1 - math.tanh(0.5 * 2)), "b": 1.0, "c": 1.0}
        assert coefficients({"a": 0.9}, 0.3) == {}

    def test_gradients_of_the_dominant_encoder_shrink_by_its_coefficient(self) -> None:
        model, data = LateFusionModel(encoders(), CLASSES).eval(), batch()
        with torch.no_grad():
            model.fusion.weight[:, :5] *= 5  # "a" decides
        method, context = OgmGe(alpha=0.4, enhance=False), Context(Criterion())
        loss = method.loss(model, data, context)["fused"]
        shares = {
            "a": (model.encode(data, "a") @ model.fusion.weight[:, :5].T + model.fusion.bias / 2),
            "v": (model.encode(data, "v") @ model.fusion.weight[:, 5:].T + model.fusion.bias / 2),
        }
        score = {
            m: sum(probability(u, y) for u, y in zip(s.tolist(), data.labels.tolist(), strict=True))
            for m, s in shares.items()
        }
        strong, weak = sorted(score, key=score.__getitem__)[::-1]
        expected = 1 - math.tanh(0.4 * score[strong] / score[weak])
        assert context.coefficients[strong] == pytest.approx(expected, rel=1e-4)
        assert context.coefficients[weak] == 1.0
        loss.backward()
        before = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
        method.after_backward(model, context)
        for name, value in model.named_parameters():
            scaled = name.startswith(f"branches.{strong}.encoder") and value.dim() > 1
            factor = expected if scaled else 1.0
            assert value.grad is not None
            assert torch.allclose(value.grad, before[name] * factor, rtol=1e-4, atol=1e-7), name

    def test_enhancement_adds_noise_of_the_gradients_deviation(self) -> None:
        model = LateFusionModel(encoders(), CLASSES)
        weight = model.encoder("a").net.project.weight
        weight.grad = torch.linspace(-1, 1, weight.numel()).reshape(weight.shape)
        deviation, original = float(weight.grad.std()), weight.grad.clone()
        torch.manual_seed(0)
        OgmGe().after_backward(model, Context(Criterion(), {"a": 0.5}))
        noise = weight.grad - 0.5 * original
        assert float(noise.std()) == pytest.approx(deviation, rel=0.1)
        assert abs(float(noise.mean())) < 0.1 * deviation


class TestPmr:
    def test_loss_by_loops(self) -> None:
        model, data = LateFusionModel(encoders(), CLASSES).eval(), batch(40)
        method = Pmr(alpha=0.7)
        terms = method.loss(model, data, method.begin_round(model, data, NOW))
        labels = data.labels.tolist()
        logits: dict[str, list[list[float]]] = {}
        for m in NAMES:
            z = model.encode(data, m).detach().numpy().astype(float)
            means = [z[[i for i, y in enumerate(labels) if y == c]].mean(0) for c in range(CLASSES)]
            logits[m] = [[-float(np.linalg.norm(row - mean)) for mean in means] for row in z]
        score = {m: sum(probability(u, y) for u, y in zip(logits[m], labels, strict=True)) for m in NAMES}
        weak = min(score, key=score.__getitem__)
        lag = min(max(score.values()) / score[weak] - 1, 1.0)
        loss = sum(cross_entropy(u, y) for u, y in zip(logits[weak], labels, strict=True)) / len(labels)
        assert terms["prototypes"].item() == pytest.approx(0.7 * lag * loss, rel=1e-3)

    def test_a_class_without_examples_is_never_likely(self) -> None:
        means = torch.tensor([[0.0, 0.0], [math.nan, math.nan]])
        assert prototype_logits(torch.tensor([[3.0, 4.0]]), means).softmax(1).tolist() == [[1.0, 0.0]]


class TestFedProto:
    def federated(self, parts: list[Batch]) -> tuple[PrototypeFusionModel, list[Params]]:
        """A model that received the mean of what clients with these examples send, and what they sent."""
        model = PrototypeFusionModel(encoders(), CLASSES)
        start, mean, sent = get_params(model), BlockMean(), []
        for part in parts:
            set_params(model, start)
            FedProto().end_round(model, part, FedProto().begin_round(model, part, NOW))
            sent.append(get_params(model))
            mean.add(sent[-1], dict.fromkeys(("a", "v", "shared"), float(len(part))))
        set_params(model, mean.result(start))
        return model, sent

    def test_the_servers_mean_is_the_mean_over_all_examples_of_a_class(self) -> None:
        parts = [batch(10, 0.3, seed=1), batch(33, 0.2, seed=2)]
        model, _ = self.federated(parts)
        for m in NAMES:
            rows = [
                (z, y)
                for part in parts
                for z, y, has in zip(
                    model.encode(part, m).tolist(), part.labels.tolist(), part.has(m).tolist(), strict=True
                )
                if has
            ]
            for c in range(CLASSES):
                expected = np.mean([z for z, y in rows if y == c], axis=0)
                assert model.prototypes(m).means()[c].tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)

    def test_loss_by_loops(self) -> None:
        model, _ = self.federated([batch(30, seed=1)])
        data = batch(12, 0.3, seed=5)
        terms = FedProto(prototype_weight=0.5).loss(model, data, FedProto().begin_round(model, data, NOW))
        expected = 0.0
        for m in NAMES:
            z, means = model.encode(data, m).tolist(), model.prototypes(m).means().tolist()
            own = [
                sum((x - c) ** 2 for x, c in zip(z[i], means[int(data.labels[i])], strict=True)) / 5
                for i in range(len(data))
                if data.has(m)[i]
            ]
            expected += sum(own) / len(own)
        assert terms["prototypes"].item() == pytest.approx(0.5 * expected, rel=1e-4)

    def test_without_prototypes_there_is_no_such_term(self) -> None:
        model, data = PrototypeFusionModel(encoders(), CLASSES), batch()
        assert set(FedProto().loss(model, data, FedProto().begin_round(model, data, NOW))) == {"fused"}
