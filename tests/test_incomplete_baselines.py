"""The baselines for missing modalities against derivations by loops, which share no code with them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from test_baselines import CLASSES, NAMES, batch, cross_entropy, encoders, probability

from client.methods.base import Round
from client.methods.cosine_prototypes import CosinePrototypes
from client.methods.harmony import Harmony
from client.methods.modal_enhancement import ModalEnhancement
from client.methods.modality_dropout import ModalityDropout, kept
from client.methods.pmcmfl import PmcmFL, contrast
from client.methods.prototype_impute import PrototypeImpute
from client.methods.shared.criterion import Criterion
from common.blocks import get_params, select, set_params
from common.models.fused_prototypes import FusedPrototypesModel
from common.models.late_fusion import LateFusionModel
from common.models.prototype_fill import PrototypeFillModel
from common.models.prototype_fusion import PrototypeFusionModel
from common.models.unimodal_heads import UnimodalHeadsModel
from common.types import Batch
from server.aggregation.block_mean import BlockMean

Vector = np.ndarray[Any, np.dtype[np.float64]]
NOW = Round(2, frozenset(NAMES), 8)


def federated(model: Any, method: Any, parts: Sequence[Batch]) -> None:
    """Give the model the server's mean of what clients with these examples send, without any training."""
    start, mean = get_params(model), BlockMean()
    for part in parts:
        held = frozenset(m for m in part.modalities if part.holds(m))
        set_params(model, start)
        method.end_round(model, part, method.begin_round(model, part, Round(2, held, 8)))
        sent = select(get_params(model), held)
        mean.add(sent, dict.fromkeys((*held, "shared"), float(len(part))))
    set_params(model, mean.result(start))


def only(data: Batch, modality: str) -> Batch:
    """The examples of a client that holds one modality."""
    return Batch({modality: data.inputs[modality]}, {modality: data.origin[modality]}, data.labels)


def vectors(model: Any, data: Batch, modality: str) -> list[Vector]:
    """z_m by row."""
    return list(model.encode(data, modality).detach().double().numpy())


def rows_of(data: Batch, *modalities: str) -> list[int]:
    """The rows that have all of these modalities."""
    return [i for i in range(len(data)) if all(bool(data.has(m)[i]) for m in modalities)]


def class_means(model: Any, parts: Sequence[Batch], modality: str, complete: bool) -> dict[int, Vector]:
    """The mean of z_m over the examples of all parts, by class."""
    found: dict[int, list[Vector]] = {}
    for part in parts:
        z = vectors(model, part, modality)
        for i in rows_of(part, *NAMES) if complete else rows_of(part, modality):
            found.setdefault(int(part.labels[i]), []).append(z[i])
    return {c: np.mean(values, axis=0) for c, values in found.items()}


def fuse(model: LateFusionModel, slots: dict[str, Vector]) -> Vector:
    """F on one row."""
    weight, bias = (value.detach().double().numpy() for value in (model.fusion.weight, model.fusion.bias))
    return np.asarray(weight @ np.concatenate([slots[m] for m in NAMES]) + bias)


def unit(vector: Vector) -> Vector:
    return vector / np.linalg.norm(vector)


def without(data: Batch, label: int) -> Batch:
    return data.rows(data.labels != label)


class TestModalityDropout:
    def test_a_modality_stays_by_its_draw_and_the_last_one_always(self) -> None:
        rng = torch.Generator().manual_seed(0)
        present = torch.rand(3, 400, generator=rng) < 0.7
        draws = torch.rand(3, 400, generator=rng)
        got = kept(present, draws, 0.4)
        for i in range(400):
            there = [m for m in range(3) if present[m, i]]
            stay = {m for m in there if draws[m, i] >= 0.4}
            if there and not stay:
                stay = {max(there, key=lambda m: float(draws[m, i]))}
            assert {m for m in range(3) if got[m, i]} == stay

    def test_the_last_one_is_any_with_the_same_probability(self) -> None:
        draws = torch.rand(2, 40_000, generator=torch.Generator().manual_seed(1))
        got = kept(torch.ones(2, 40_000, dtype=torch.bool), draws, 0.5)
        for pattern in ((True, True), (True, False), (False, True)):  # p = 1/4, 1/4 + 1/8 and 1/4 + 1/8
            share = (got == torch.tensor(pattern).unsqueeze(1)).all(0).double().mean()
            assert float(share) == pytest.approx(0.25 if all(pattern) else 0.375, abs=0.01)

    def test_loss_by_loops(self) -> None:
        model, data = LateFusionModel(encoders(), CLASSES), batch(missing=0.3)
        torch.manual_seed(7)
        draws = torch.rand(2, len(data))
        torch.manual_seed(7)
        terms = ModalityDropout(rate=0.6).loss(model.train(), data, Criterion())
        losses, dropped = [], 0
        z = {m: vectors(model, data, m) for m in NAMES}
        for i in range(len(data)):
            there = [m for m in NAMES if data.has(m)[i]]
            stay = [m for m in there if draws[NAMES.index(m), i] >= 0.6]
            stay = stay or [max(there, key=lambda m: float(draws[NAMES.index(m), i]))]
            dropped += len(there) - len(stay)
            slots = {m: z[m][i] if m in stay else np.zeros(5) for m in NAMES}
            losses.append(cross_entropy(fuse(model, slots).tolist(), int(data.labels[i])))
        assert dropped > 0
        assert terms["fused"].item() == pytest.approx(np.mean(losses), rel=1e-4)

    def test_nothing_is_left_out_in_eval_mode(self) -> None:
        model, data = LateFusionModel(encoders(), CLASSES).eval(), batch()
        terms = ModalityDropout(rate=0.9).loss(model, data, Criterion())
        assert torch.equal(terms["fused"], Criterion()(model.predict(data), data.labels))


class TestPrototypeImpute:
    @pytest.fixture
    def parts(self) -> list[Batch]:
        """The examples of three clients. One holds a single modality, and class 2 has no examples with modality v."""
        return [without(batch(30, 0.3, seed=1), 2), only(batch(20, seed=2), "a"), without(batch(15, seed=3), 2)]

    @pytest.fixture
    def model(self, parts: list[Batch]) -> PrototypeFillModel:
        model = PrototypeFillModel(encoders(), CLASSES).eval()
        federated(model, PrototypeImpute(), parts)
        return model

    @pytest.fixture
    def means(self, model: PrototypeFillModel, parts: list[Batch]) -> dict[str, list[Vector]]:
        """By modality and class; for a class without examples the mean of all examples."""
        found = {}
        for m in NAMES:
            own = class_means(model, parts, m, complete=False)
            every = np.mean([vectors(model, part, m)[i] for part in parts for i in rows_of(part, m)], axis=0)
            found[m] = [own.get(c, every) for c in range(CLASSES)]
        assert 2 not in class_means(model, parts, "v", complete=False)
        return found

    def test_prototypes_are_means_over_the_examples_of_all_clients(
        self, model: PrototypeFillModel, means: dict[str, list[Vector]]
    ) -> None:
        for m in NAMES:
            np.testing.assert_allclose(model.fillers(m).numpy(), means[m], atol=1e-5)

    def test_in_training_the_prototype_of_the_label_fills_a_slot(
        self, model: PrototypeFillModel, means: dict[str, list[Vector]]
    ) -> None:
        data = batch(24, 0.4, seed=5)
        z, labels = {m: vectors(model, data, m) for m in NAMES}, data.labels.tolist()
        losses = []
        for i, label in enumerate(labels):
            slots = {m: z[m][i] if data.has(m)[i] else means[m][label] for m in NAMES}
            losses.append(cross_entropy(fuse(model, slots).tolist(), label))
        terms = PrototypeImpute().loss(model, data, NOW)
        assert terms["fused"].item() == pytest.approx(np.mean(losses), rel=1e-4)

    def test_in_a_prediction_each_class_assumes_its_own_prototype(
        self, model: PrototypeFillModel, means: dict[str, list[Vector]]
    ) -> None:
        data = batch(24, 0.4, seed=6)
        z, logits = {m: vectors(model, data, m) for m in NAMES}, model.predict(data).detach().numpy()
        for i in range(len(data)):
            for c in range(CLASSES):
                slots = {m: z[m][i] if data.has(m)[i] else means[m][c] for m in NAMES}
                assert logits[i, c] == pytest.approx(fuse(model, slots)[c], rel=1e-4, abs=1e-5)

    def test_before_the_first_prototypes_missing_features_are_zeros(self) -> None:
        data, fresh = batch(24, 0.4), PrototypeFillModel(encoders(), CLASSES).eval()
        plain = LateFusionModel(encoders(), CLASSES).eval()
        plain.fusion.load_state_dict(fresh.fusion.state_dict())
        assert torch.equal(fresh.predict(data), plain.predict(data))
        filled = fresh.fill(fresh.features(data), data)
        assert not any(filled[m][~data.has(m)].any() for m in NAMES)


class TestPmcmFL:
    def test_contrast_by_loops(self) -> None:
        rng = np.random.default_rng(0)
        own, targets = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
        losses = []
        for i in range(5):
            scores = [float(unit(own[i]) @ unit(targets[j])) / 0.2 for j in range(5)]
            losses.append(cross_entropy(scores, i))
        assert float(contrast(torch.tensor(own), torch.tensor(targets), 0.2)) == pytest.approx(np.mean(losses))

    def test_loss_by_loops_with_prototypes_from_complete_rows(self) -> None:
        model, method = PrototypeFillModel(encoders(), CLASSES).eval(), PmcmFL(fusion_weight=0.5, modality_weight=0.3)
        parts = [without(batch(30, 0.3, seed=1), 1), only(batch(20, seed=2), "a"), without(batch(15, seed=3), 1)]
        federated(model, method, parts)
        means = {m: class_means(model, parts, m, complete=True) for m in NAMES}
        assert means["a"].keys() == means["v"].keys() == {0, 2}
        data = batch(20, 0.4, seed=5)
        labels, z = data.labels.tolist(), {m: vectors(model, data, m) for m in NAMES}
        every = {
            m: np.mean([vectors(model, part, m)[i] for part in parts for i in rows_of(part, *NAMES)], axis=0)
            for m in NAMES
        }
        slots = [
            {m: z[m][i] if data.has(m)[i] else means[m].get(y, every[m]) for m in NAMES} for i, y in enumerate(labels)
        ]
        known = [i for i, y in enumerate(labels) if y != 1]

        def nce(own: list[Vector], targets: list[Vector]) -> float:
            scores = [[float(unit(o) @ unit(t)) / 0.07 for t in targets] for o in own]
            return float(np.mean([cross_entropy(row, i) for i, row in enumerate(scores)]))

        whole = nce(
            [np.concatenate([slots[i][m] for m in NAMES]) for i in known],
            [np.concatenate([means[m][labels[i]] for m in NAMES]) for i in known],
        )
        single = 0.0
        for m in NAMES:
            rows = [i for i in known if data.has(m)[i]]
            single += nce([z[m][i] for i in rows], [means[m][labels[i]] for i in rows])
        fused = np.mean([cross_entropy(fuse(model, slots[i]).tolist(), y) for i, y in enumerate(labels)])
        terms = {name: term.item() for name, term in method.loss(model, data, NOW).items()}
        expected = {"fused": fused, "contrast": 0.5 * whole, "modality contrast": 0.3 * single}
        assert terms == pytest.approx(expected, rel=1e-4)

    def test_terms_with_weight_0_are_left_out_and_without_prototypes_they_are_0(self) -> None:
        model, data = PrototypeFillModel(encoders(), CLASSES), batch()
        assert set(PmcmFL(fusion_weight=0, modality_weight=0).loss(model, data, NOW)) == {"fused"}
        terms = PmcmFL().loss(model, data, NOW)
        assert terms["contrast"].item() == terms["modality contrast"].item() == 0


class TestModalEnhancement:
    @pytest.mark.parametrize("seed", range(4))
    def test_loss_by_loops(self, seed: int) -> None:
        model, method = PrototypeFusionModel(encoders(), CLASSES).eval(), ModalEnhancement(alpha=0.7)
        parts = [without(batch(30, 0.3, seed=seed + 10), 1), without(batch(15, seed=3), 1)]
        federated(model, method, parts)
        data = batch(20, 0.3, seed=seed)
        labels = data.labels.tolist()
        score, loss = {}, {}
        for m in NAMES:
            means, z = class_means(model, parts, m, complete=False), vectors(model, data, m)
            own = []
            for i in rows_of(data, m):
                distances = {c: -float(np.linalg.norm(z[i] - mean)) for c, mean in means.items()}
                if labels[i] in distances:
                    own.append((list(distances.values()), list(distances).index(labels[i])))
            score[m] = sum(probability(u, y) for u, y in own) / len(rows_of(data, m))
            loss[m] = float(np.mean([cross_entropy(u, y) for u, y in own]))
        weak = min(score, key=score.__getitem__)
        terms = method.loss(model, data, method.begin_round(model, data, NOW))
        assert terms["enhancement"].item() == pytest.approx(0.7 * loss[weak], rel=1e-3)

    def test_the_only_modality_is_always_pulled(self) -> None:
        model, method = PrototypeFusionModel(encoders(), CLASSES).eval(), ModalEnhancement()
        part = batch(30, seed=1)
        federated(model, method, [part])
        data = only(batch(12, seed=5), "v")
        means, z = class_means(model, [part], "v", complete=False), vectors(model, data, "v")
        losses = [
            cross_entropy([-float(np.linalg.norm(z[i] - means[c])) for c in range(CLASSES)], int(data.labels[i]))
            for i in range(len(data))
        ]
        terms = method.loss(model, data, method.begin_round(model, data, Round(2, frozenset("v"), 8)))
        assert terms["enhancement"].item() == pytest.approx(np.mean(losses), rel=1e-3)

    def test_without_prototypes_there_is_no_such_term(self) -> None:
        model, data = PrototypeFusionModel(encoders(), CLASSES), batch()
        method = ModalEnhancement()
        assert set(method.loss(model, data, method.begin_round(model, data, NOW))) == {"fused"}


class TestCosinePrototypes:
    def test_loss_by_loops(self) -> None:
        model, method = FusedPrototypesModel(encoders(), CLASSES).eval(), CosinePrototypes(alpha=0.6)
        parts = [without(batch(30, 0.3, seed=1), 1), without(only(batch(20, seed=2), "a"), 1)]
        federated(model, method, parts)

        def fused(data: Batch) -> list[Vector]:
            z = {m: vectors(model, data, m) for m in NAMES}  # zeros where a modality is missing
            return [np.concatenate([z[m][i] for m in NAMES]) for i in range(len(data))]

        found: dict[int, list[Vector]] = {}
        for part in parts:
            for h, y in zip(fused(part), part.labels.tolist(), strict=True):
                found.setdefault(y, []).append(h)
        classes = sorted(found)
        assert classes == [0, 2]
        data, losses = batch(16, 0.3, seed=5), []
        for h, y in zip(fused(data), data.labels.tolist(), strict=True):
            if y in found:
                cosines = [float(unit(h) @ unit(np.mean(found[c], axis=0))) for c in classes]
                losses.append(cross_entropy(cosines, classes.index(y)))
        assert 0 < len(losses) < len(data)
        terms = method.loss(model, data, method.begin_round(model, data, NOW))
        assert terms["prototypes"].item() == pytest.approx(0.6 * np.mean(losses), rel=1e-4)

    def test_without_prototypes_there_is_no_such_term(self) -> None:
        model, data = FusedPrototypesModel(encoders(), CLASSES), batch()
        method = CosinePrototypes()
        assert set(method.loss(model, data, method.begin_round(model, data, NOW))) == {"fused"}


class TestHarmony:
    def test_the_first_stage_trains_each_modality_alone(self) -> None:
        model, data = UnimodalHeadsModel(encoders(), CLASSES).eval(), batch(missing=0.3)
        terms = Harmony(unimodal_share=0.5).loss(model, data, Round(2, frozenset(NAMES), 8, rounds=4))
        expected = 0.0
        for m in NAMES:
            head = model.branches[m].classifier
            weight, bias = (value.detach().double().numpy() for value in (head.weight, head.bias))
            z = vectors(model, data, m)
            losses = [cross_entropy((weight @ z[i] + bias).tolist(), int(data.labels[i])) for i in rows_of(data, m)]
            expected += float(np.mean(losses))
        assert terms["unimodal"].item() == pytest.approx(expected, rel=1e-4)
        torch.stack(list(terms.values())).sum().backward()
        assert model.fusion.weight.grad is None
        assert all(model.branches[m].classifier.weight.grad.any() for m in NAMES)

    def test_the_second_stage_trains_the_fusion_and_the_encoders(self) -> None:
        model, data = UnimodalHeadsModel(encoders(), CLASSES).eval(), batch(missing=0.3)
        terms = Harmony(unimodal_share=0.5).loss(model, data, Round(3, frozenset(NAMES), 8, rounds=4))
        z = {m: vectors(model, data, m) for m in NAMES}
        losses = [
            cross_entropy(fuse(model, {m: z[m][i] for m in NAMES}).tolist(), int(data.labels[i]))
            for i in range(len(data))
        ]
        assert {name: term.item() for name, term in terms.items()} == pytest.approx(
            {"fused": np.mean(losses)}, rel=1e-4
        )
        terms["fused"].backward()
        assert all(model.branches[m].classifier.weight.grad is None for m in NAMES)
        assert all(weight.grad.any() for m in NAMES for weight in model.encoder(m).parameters() if weight.dim() > 1)
