"""Methods for multi-label and regression against derivations by loops, which share no code with them (docs/methods.md,
section 1.9 and 4.1)."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import ROOT, experiment, make_pictures

from client.methods.base import Method, Round
from client.methods.fedcmi import FedCMI, class_temperatures
from client.methods.fedcmi_gated import FedCMIGated, log_prior
from client.methods.fedmvp import FedMVP
from client.methods.fedproto import FedProto
from client.methods.ogm_ge import Context, OgmGe
from client.methods.pmr import Pmr, present_against_absent, prototype_logits, sides
from client.methods.shared.criterion import BinaryCrossEntropy, Criterion, SquaredError, criterion_of, inverse_odds
from common.blocks import get_params, set_params
from common.build import build_model
from common.config.component import build, own_names
from common.config.task import TaskName
from common.encoders.image import ImageEncoder
from common.errors import ConfigError
from common.models.base import MultimodalModel
from common.models.joint import Joint
from common.models.late_fusion import LateFusionModel
from common.models.prototype_fusion import PrototypeFusionModel
from common.models.two_projector import TwoProjectorModel
from common.models.unimodal_heads import UnimodalHeadsModel
from common.trained.saved_model import Description, read_model, write_model
from common.types import CPU, Batch
from fedmosaic.testing.criteria import MEAN, STD, changed, formula, smoothed, smoothed_binary, squared_error
from fedmosaic.testing.examples import CLASSES, make_targets
from server.aggregation.block_mean import BlockMean

LABELS = 3
NAMES = ("a", "v")
BINARY = BinaryCrossEntropy()
NOW = Round(2, frozenset(NAMES), 8, BINARY)
Rows = list[list[float]]


def encoders(names: tuple[str, ...] = NAMES) -> dict[str, ImageEncoder]:
    torch.manual_seed(3)
    return {m: ImageEncoder(8, 1, "cnn", 5) for m in names}


def examples(rows: int = 20, missing: float = 0.0, seed: int = 0) -> Batch:
    """The first example has no label, the second has all."""
    return make_pictures(NAMES, rows, LABELS, seed, missing, "multi-label")


def two_projector(names: tuple[str, ...] = NAMES) -> TwoProjectorModel:
    model = TwoProjectorModel(encoders(names), LABELS, 5, 1, shared=False, fill="infiltration")
    model.task = "multi-label"
    return model.eval()


def sigmoid(u: float) -> float:
    return 1 / (1 + math.exp(-u))


def truth(u: float, y: float) -> float:
    return sigmoid(u) if y else 1 - sigmoid(u)


def bce(p: float, target: float) -> float:
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def mean_bce(logits: Rows, labels: Rows) -> float:
    """The mean over rows and labels."""
    terms = [bce(sigmoid(u), y) for row, ys in zip(logits, labels, strict=True) for u, y in zip(row, ys, strict=True)]
    return sum(terms) / len(terms)


def mean_truth(logits: Rows, labels: Rows) -> float:
    pairs = [(u, y) for row, ys in zip(logits, labels, strict=True) for u, y in zip(row, ys, strict=True)]
    return sum(truth(u, y) for u, y in pairs) / len(pairs)


def values(terms: Mapping[str, torch.Tensor]) -> dict[str, float]:
    return {name: float(term.detach()) for name, term in terms.items()}


def held_rows(batch: Batch, modality: str) -> list[int]:
    return batch.has(modality).nonzero()[:, 0].tolist()


class TestFedCMI:
    def test_temperatures_by_hand(self) -> None:
        # Label 0 in rows 0 and 1: A = 0.8, V = 0.2, r = 4. Label 1 in rows 1 and 2: A = V = 0.6, r = 1. Label 2: none.
        labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0]])
        dominant = torch.tensor([[0.9, 0.1, 0.5], [0.7, 0.5, 0.5], [0.2, 0.7, 0.5]])
        weak = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.6, 0.5], [0.9, 0.6, 0.5]])
        got = class_temperatures(dominant, weak, labels, LABELS, kappa=2.0)
        assert got.tolist() == pytest.approx([1 / (1 + 2 * math.log(4 / 2.5)), 1.0, 1.0], rel=1e-6)

    def test_with_one_label_per_example_the_temperatures_are_those_of_classes(self) -> None:
        rng = torch.Generator().manual_seed(0)
        classes = torch.randint(LABELS, (30,), generator=rng)
        dominant, weak = (torch.rand(30, LABELS, generator=rng) for _ in range(2))
        weak[:5] = math.nan
        one_hot = torch.nn.functional.one_hot(classes, LABELS).float()
        of_classes = (given.gather(1, classes[:, None])[:, 0] for given in (dominant, weak))
        expected = class_temperatures(*of_classes, classes, LABELS, 2.0)
        assert torch.equal(class_temperatures(dominant, weak, one_hot, LABELS, 2.0), expected)
        assert (expected < 1).any()

    @pytest.mark.parametrize(("seed", "missing"), [(4, 0.0), (5, 0.3), (6, 0.3)])
    def test_whole_objective_by_loops(self, seed: int, missing: float) -> None:
        model, batch = two_projector(), examples(16, missing, seed)
        method = FedCMI(unimodal_weight=1.5, infiltration_weight=0.7, mu=0.1, kappa=2.0)
        got = values(method.loss(model, batch, method.begin_round(model, batch, NOW)))

        y, heads, students, rows = batch.labels.tolist(), {}, {}, {}
        with torch.no_grad():
            for m in NAMES:
                branch, rows[m] = model.branches[m], held_rows(batch, m)
                z = model.encode(batch, m)
                heads[m] = branch.classifier(branch.self_projector(z)).double().tolist()
                students[m] = branch.classifier(branch.infiltration_projector(z)).double().tolist()
            fused = model.predict(batch).double().tolist()
        sure = {m: mean_truth([heads[m][i] for i in rows[m]], [y[i] for i in rows[m]]) for m in NAMES}
        d, w = sorted(NAMES, key=lambda m: -sure[m])
        ratios = {}
        for k in range(LABELS):
            given = {m: [truth(heads[m][i][k], 1) for i in rows[m] if y[i][k]] for m in NAMES}
            if given[d] and given[w]:
                ratios[k] = (sum(given[d]) / len(given[d])) / (sum(given[w]) / len(given[w]))
        mean = sum(ratios.values()) / len(ratios)
        if mean < 1:
            ratios, mean = {k: 1 / r for k, r in ratios.items()}, 1 / mean
        t_of = {k: 1 / (1 + 2 * math.log(r / mean)) if r > mean else 1.0 for k, r in ratios.items()}
        both, infiltrated = sorted({*rows[d]} & {*rows[w]}), 0.0
        for i in both:
            for k in range(LABELS):
                t = t_of.get(k, 1.0) if y[i][k] else 1.0
                infiltrated += bce(sigmoid(students[w][i][k] / t), sigmoid(heads[d][i][k] / t))
        own = sum(mean_bce([heads[m][i] for i in rows[m]], [y[i] for i in rows[m]]) for m in NAMES)
        assert min(t_of.values()) < 1
        assert got == pytest.approx(
            {
                "fused": mean_bce(fused, y),
                "unimodal": 1.5 * own,
                "infiltration": 0.7 * infiltrated / (len(both) * LABELS),
                "proximal": 0.0,
            },
            rel=1e-4,
        )

    def test_the_most_confident_modality_of_a_row_fills_the_missing_slot(self) -> None:
        names = ("a", "b", "c")
        model = two_projector(names)
        batch = make_pictures(names, 30, LABELS, task="multi-label").only("ac")
        with torch.no_grad():
            for m in "ac":  # logits that differ between rows more than between modalities
                classifier, s = model.branches[m].classifier, model.features(batch).own[m]
                classifier.weight /= (s @ classifier.weight.T).std(0).unsqueeze(1)
                classifier.bias.copy_(-(s @ classifier.weight.T).mean(0))
        got, chosen, others = model.predict(batch), set(), 0
        with torch.no_grad():
            for i in range(len(batch)):
                s, p, sure = {}, {}, {}
                for m in "ac":
                    branch = model.branches[m]
                    z = branch.encoder(batch.inputs[m][i : i + 1])
                    s[m], p[m] = branch.self_projector(z), branch.infiltration_projector(z)
                    given = [sigmoid(u) for u in branch.classifier(s[m])[0].tolist()]
                    sure[m] = sum(max(q, 1 - q) for q in given) / LABELS
                best = max("ac", key=sure.__getitem__)
                chosen.add(best)
                likely = {m: float(model.classify(m, s[m]).softmax(1).max()) for m in "ac"}
                others += max("ac", key=likely.__getitem__) != best  # as if the task was single-label
                expected = model.fusion(torch.cat([s["a"], p[best], s["c"]], 1))[0]
                assert torch.allclose(got[i], expected, atol=1e-5)
        assert chosen == {"a", "c"} and others

    def test_a_model_is_built_for_the_task_of_its_experiment(self) -> None:
        for task in ("single-label", "multi-label"):
            assert build_model(experiment(task=task, data={"clients": 2}), LABELS).task == task


@pytest.mark.parametrize("gate", [True, False])
def test_fedcmi_gated_by_loops(gate: bool) -> None:
    model, batch = UnimodalHeadsModel(encoders(), LABELS).eval(), examples(18, 0.3)
    method = FedCMIGated(unimodal_weight=1.5, infiltration_weight=0.6, prior_weight=0.8, gate=gate)
    got = values(method.loss(model, batch, method.begin_round(model, batch, NOW)))
    y, rows = batch.labels.tolist(), {m: held_rows(batch, m) for m in NAMES}
    present = [sum(row[k] for row in y) for k in range(LABELS)]
    prior = [0.8 * math.log((n + 0.1) / (len(y) - n + 0.1)) for n in present]
    with torch.no_grad():
        z = {m: model.encode(batch, m) for m in NAMES}
        heads = {m: model.classify(m, z[m]).double().tolist() for m in NAMES}
        fused = model.fusion(torch.cat([z["a"], z["v"]], 1)).double().tolist()

    def moved(logits: Rows) -> Rows:
        return [[u + p for u, p in zip(row, prior, strict=True)] for row in logits]

    infiltrated = 0.0
    for i, labels in enumerate(y):
        own = [heads[m][i] for m in NAMES if i in rows[m]]
        teachers = [*own, fused[i]] if len(own) == 2 else own
        for k, label in enumerate(labels):
            t = sum(row[k] for row in teachers) / len(teachers)
            weight = truth(t, label) if gate else 1.0
            infiltrated += weight * sum(bce(sigmoid(row[k]), sigmoid(t)) for row in [fused[i], *own])
    own_loss = sum(mean_bce(moved([heads[m][i] for i in rows[m]]), [y[i] for i in rows[m]]) for m in NAMES)
    assert got == pytest.approx(
        {
            "fused": mean_bce(moved(fused), y),
            "unimodal": 1.5 * own_loss,
            "infiltration": 0.6 * infiltrated / (len(y) * LABELS),
        },
        rel=1e-4,
    )


def test_a_single_label_is_a_problem_of_two_classes() -> None:
    """Its formulas are those of single-label with the logits (0, u) of absent and present."""
    rng = torch.Generator().manual_seed(1)
    u, taught, classes = torch.randn(9, 1, generator=rng), torch.randn(9, 1, generator=rng), torch.arange(9) % 2
    labels, two, both = classes[:, None].float(), Criterion(), [torch.cat([u * 0, u], 1), torch.cat([u * 0, taught], 1)]
    assert float(BINARY.plain(u, labels)) == pytest.approx(float(two.plain(both[0], classes)), rel=1e-5)
    for binary, single in (
        (BINARY.truth(u, labels)[:, 0], two.truth(both[0], classes)),
        (BINARY.confidence(u, labels), two.confidence(both[0], classes)),
        (BINARY.distillation(taught, u)[:, 0], two.distillation(both[1], both[0])),
    ):
        assert torch.allclose(binary, single, atol=1e-6)
    absent, present = log_prior(classes, 2).tolist()
    assert log_prior(labels, 1).tolist() == pytest.approx([present - absent], rel=1e-5)
    features, means = torch.randn(4, 5, generator=rng), torch.randn(2, 5, generator=rng)
    near = prototype_logits(features, means)
    chance = present_against_absent(near).sigmoid()[:, 0]
    assert torch.allclose(chance, near.softmax(1)[:, 0], atol=1e-6)


def test_ogm_ge_by_loops() -> None:
    model, batch = LateFusionModel(encoders(), LABELS).eval(), examples(14, 0.2)
    with torch.no_grad():
        model.fusion.weight[:, :5] *= 5
    context = Context(BINARY)
    loss = OgmGe(alpha=0.4).loss(model, batch, context)["fused"]
    weight, bias, sure = model.fusion.weight, model.fusion.bias / 2, {}
    for m, columns in (("a", weight[:, :5]), ("v", weight[:, 5:])):
        share, rows = (model.encode(batch, m) @ columns.T + bias).tolist(), held_rows(batch, m)
        sure[m] = mean_truth([share[i] for i in rows], [batch.labels[i].tolist() for i in rows])
    strong, weak = sorted(NAMES, key=lambda m: -sure[m])
    expected = {strong: 1 - math.tanh(0.4 * sure[strong] / sure[weak]), weak: 1.0}
    assert context.coefficients == pytest.approx(expected, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(
        mean_bce(model.predict(batch).tolist(), batch.labels.tolist()), rel=1e-5
    )


class TestPmr:
    def test_loss_by_loops(self) -> None:
        model, batch = LateFusionModel(encoders(), LABELS).eval(), examples(30, 0.2)
        method = Pmr(alpha=0.7)
        got = values(method.loss(model, batch, method.begin_round(model, batch, NOW)))
        y, logits, sure = batch.labels.tolist(), {}, {}
        for m in NAMES:
            z, rows = model.encode(batch, m).detach().double().numpy(), held_rows(batch, m)
            logits[m] = [[0.0] * LABELS for _ in rows]
            for k in range(LABELS):
                with_k, without = (z[[i for i in rows if y[i][k] == side]].mean(0) for side in (1, 0))
                for place, i in enumerate(rows):
                    far, near = np.linalg.norm(z[i] - without), np.linalg.norm(z[i] - with_k)
                    logits[m][place][k] = float(far - near)
            sure[m] = mean_truth(logits[m], [y[i] for i in rows])
        weak = min(NAMES, key=sure.__getitem__)
        lag = min(max(sure.values()) / sure[weak] - 1, 1.0)
        loss = mean_bce(logits[weak], [y[i] for i in held_rows(batch, weak)])
        assert got["prototypes"] == pytest.approx(0.7 * lag * loss, rel=1e-3)

    def test_a_label_that_no_or_every_example_has_is_predicted_without_a_loss(self) -> None:
        labels = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        features = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        members = sides(labels)
        means = (members.T @ features.detach()) / members.sum(0).unsqueeze(1)
        loss = BINARY.plain(present_against_absent(prototype_logits(features, means)), labels)
        loss.backward()
        assert float(loss.detach()) == 0
        assert features.grad is not None and not features.grad.any()


class TestFedProto:
    def test_the_servers_mean_is_the_mean_over_all_examples_with_a_label(self) -> None:
        model = PrototypeFusionModel(encoders(), LABELS).eval()
        start, mean, parts = get_params(model), BlockMean(), [examples(11, 0.3, 1), examples(30, 0.2, 2)]
        for part in parts:
            set_params(model, start)
            FedProto().end_round(model, part, FedProto().begin_round(model, part, NOW))
            mean.add(get_params(model), dict.fromkeys((*NAMES, "shared"), float(len(part))))
        set_params(model, mean.result(start))
        for m in NAMES:
            features = [(model.encode(part, m)[i].tolist(), part.labels[i].tolist())
                        for part in parts for i in held_rows(part, m)]  # fmt: skip
            for k in range(LABELS):
                expected = np.mean([z for z, y in features if y[k]], axis=0)
                assert model.prototypes(m).means()[k].tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)

    def test_loss_by_loops(self) -> None:
        model, batch = PrototypeFusionModel(encoders(), LABELS).eval(), examples(14, 0.3, 5)
        FedProto().end_round(model, examples(20), FedProto().begin_round(model, examples(20), NOW))
        for m in NAMES:
            model.prototypes(m).sums[2], model.prototypes(m).shares[2] = 0, 0  # no client has label 2
        got = values(FedProto(prototype_weight=0.5).loss(model, batch, FedProto().begin_round(model, batch, NOW)))
        expected, pulled = 0.0, 0
        for m in NAMES:
            z, means, distances = model.encode(batch, m).tolist(), model.prototypes(m).means().tolist(), []
            for i in held_rows(batch, m):
                own = [means[k] for k in (0, 1) if batch.labels[i, k]]
                if own:
                    wanted = np.mean(own, axis=0)
                    distances.append(sum((x - c) ** 2 for x, c in zip(z[i], wanted, strict=True)) / 5)
            pulled += len(distances)
            expected += sum(distances) / len(distances)
        assert pulled < sum(len(held_rows(batch, m)) for m in NAMES)
        assert got["prototypes"] == pytest.approx(0.5 * expected, rel=1e-4)

    def test_with_one_label_per_example_the_term_is_that_of_classes(self) -> None:
        model, batch = PrototypeFusionModel(encoders(), LABELS).eval(), examples(12)
        classes = torch.arange(12) % LABELS
        found = []
        for labels, criterion in ((torch.nn.functional.one_hot(classes).float(), BINARY), (classes, Criterion())):
            part, now = Batch(batch.inputs, batch.origin, labels), Round(2, frozenset(NAMES), 8, criterion)
            FedProto().end_round(model, part, FedProto().begin_round(model, part, now))
            found.append(values(FedProto().loss(model, part, FedProto().begin_round(model, part, now)))["prototypes"])
        assert found[0] == pytest.approx(found[1], rel=1e-6)


class TestFedMVP:
    @pytest.mark.parametrize("task", ["multi-label", "regression"])
    def test_the_gate_compares_the_losses_of_the_task(self, task: str) -> None:
        mean, std = torch.tensor([0.3, -0.2, 0.1]), torch.tensor([1.0, 2.0, 0.5])
        criterion = BINARY if task == "multi-label" else SquaredError(mean, std)
        opened = 0
        for seed in range(6):
            own = encoders()
            torch.manual_seed(seed)
            model = Joint(width=8, heads=2, joint_heads=2, depth=1).build(own, LABELS).eval()
            batch = make_pictures(NAMES, 12, LABELS, seed, 0.2, task)  # type: ignore[arg-type]
            got = values(FedMVP(alignment_weight=0.7).loss(model, batch, criterion))
            joined, expected = model.join(batch), 0.0

            def loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
                if task == "multi-label":
                    return mean_bce(logits.tolist(), labels.tolist())
                return (
                    sum(float(((logits[:, k] - (labels[:, k] - mean[k]) / std[k]) ** 2).mean()) for k in range(3)) / 3
                )

            for m in NAMES:
                rows = held_rows(batch, m)
                joint, single, labels = joined.joint[rows], joined.single[m][rows], batch.labels[rows]
                if loss(model.classifier(single).detach(), labels) < loss(joined.logits[rows].detach(), labels):
                    opened += 1
                    expected += float((joint - single).detach().square().sum().sqrt()) / len(rows)
            assert got["alignment"] == pytest.approx(0.7 * expected, rel=1e-4)
            assert got["fused"] == pytest.approx(loss(joined.logits.detach(), batch.labels), rel=1e-4)
        assert 0 < opened < 12


class TestCriterion:
    @pytest.mark.parametrize("task", get_args(TaskName))
    def test_loss_with_and_without_options_by_numpy(self, task: TaskName) -> None:
        rng = torch.Generator().manual_seed(4)
        logits, labels = torch.randn(9, CLASSES, generator=rng), make_targets(9, CLASSES, task, rng)
        criterion, u, y = changed(task), logits.double().numpy(), labels.double().numpy()
        assert float(criterion(logits, labels)) == pytest.approx(formula(task)(logits, labels), rel=1e-5)
        if task == "single-label":
            expected = smoothed(logits, labels, torch.ones(CLASSES), 0)
        elif task == "multi-label":
            expected = mean_bce(u.tolist(), y.tolist())
        else:
            expected = np.mean([((u[:, k] - (y[:, k] - float(MEAN[k])) / float(STD[k])) ** 2) for k in range(CLASSES)])
        assert float(criterion.plain(logits, labels)) == pytest.approx(expected, rel=1e-5)

    def test_inverse_odds_by_hand(self) -> None:
        labels = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])  # 1 of 4, none, all
        assert inverse_odds(labels).tolist() == [3.0, 1.0, 1.0]
        chosen = experiment(data={"clients": 2}, task="multi-label", method="fedavg", train__class_weights="inverse")
        criterion = criterion_of(chosen, labels, ["x", "y", "z"], CPU)
        present, absent = torch.zeros(4, 3), torch.zeros(4, 3)
        present[:, 1:], absent[:, 1:] = 40.0 * (2 * labels[:, 1:] - 1), 40.0 * (2 * labels[:, 1:] - 1)
        present[1:, 0], absent[0, 0] = -40.0, 40.0  # only the example with label x is undecided, or only the others
        assert float(criterion(present, labels)) == pytest.approx(float(criterion(absent, labels)), rel=1e-5)

    def test_options_are_by_name(self) -> None:
        rng = torch.Generator().manual_seed(5)
        logits, labels = torch.randn(9, 3, generator=rng), make_targets(9, 3, "multi-label", rng)
        names, sites = ["x", "y", "z"], {"clients": 2}
        chosen = experiment(data=sites, task="multi-label", method="fedavg", train__class_weights={"y": 2.5})
        expected = smoothed_binary(logits, labels, torch.tensor([1, 2.5, 1]), 0)
        assert float(criterion_of(chosen, labels, names, CPU)(logits, labels)) == pytest.approx(expected, rel=1e-5)
        task = {"name": "regression", "mean": {"z": 3.0}, "std": {"x": 0.5}}
        chosen, numbers = experiment(data=sites, task=task, method="fedavg"), torch.randn(9, 3, generator=rng)
        expected = squared_error(logits, numbers, torch.tensor([0.0, 0, 3]), torch.tensor([0.5, 1, 1]))
        assert float(criterion_of(chosen, numbers, names, CPU)(logits, numbers)) == pytest.approx(expected, rel=1e-5)
        with pytest.raises(ConfigError, match=r"task.mean.z: unknown class 'z'; known: x, y"):
            criterion_of(chosen, numbers[:, :2], names[:2], CPU)

    def test_a_regression_has_no_probabilities(self) -> None:
        criterion, rows = SquaredError(torch.zeros(3), torch.ones(3)), torch.zeros(2, 3)
        for probabilities in (criterion.truth, criterion.confidence, criterion.distillation):
            with pytest.raises(NotImplementedError, match="a regression has no probabilities"):
                probabilities(rows, rows)


def test_a_saved_model_is_read_with_its_task(tmp_path: Path) -> None:
    chosen = experiment(data={"clients": 2}, task="multi-label")
    write_model(
        tmp_path,
        build_model(chosen, LABELS),
        Description(model=chosen.model, task=chosen.task, classes=["x", "y", "z"]),
    )
    model, _ = read_model(tmp_path)
    assert isinstance(model, TwoProjectorModel) and model.task == "multi-label"


class TestTasksOfMethods:
    def test_the_table_of_the_methods_page_is_that_of_the_code(self) -> None:
        text = (ROOT / "docs" / "methods.md").read_text()
        found = {}
        for name, *cells in re.findall(r"^\| `([a-z-]+)` \| (yes|no) \| (yes|no) \| (yes|no) \|", text, re.M):
            tasks = ("single-label", "multi-label", "regression")
            found[name] = {task for task, cell in zip(tasks, cells, strict=True) if cell == "yes"}
        methods: dict[str, Method[MultimodalModel, object]] = {
            name: build("method", {"name": name}) for name in own_names("method")
        }
        assert found == {name: set(method.tasks) for name, method in methods.items()}

    @pytest.mark.parametrize("method", ["fedcmi", "fedcmi-gated", "fedproto", "ogm-ge", "pmr"])
    def test_a_regression_with_a_method_that_needs_probabilities_is_refused(self, method: str) -> None:
        with pytest.raises(
            ConfigError, match="method: it is not defined for task 'regression', only for multi-label, "
        ):
            experiment(method=method, task="regression")
