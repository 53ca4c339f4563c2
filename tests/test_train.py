"""The options of local training: schedules, clipping, smoothing and weights of the loss, learning rates, freezing."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import experiment
from safetensors.torch import load_file
from test_checkpoint import Crash, go, metrics
from test_devices import NAMES, RATE, made, tiny
from test_policy import query_message, train_message
from torch import nn

from client.freezing import freeze_encoders
from client.methods.base import Round
from client.methods.shared.criterion import Criterion, criterion_of, inverse_shares
from client.optimizer import clip_gradients, make_optimizer, set_rate
from client.schedule import Schedule
from client.site import Site
from client.step import Step
from client.train import train
from common.blocks import get_params
from common.config.component import build, own_names
from common.config.experiment import Train
from common.encoders.image import ImageEncoder
from common.errors import ConfigError
from common.models.base import MultimodalModel
from common.types import CPU, Batch
from fedmosaic.testing.criteria import smoothed
from fedmosaic.testing.examples import CLASSES, MODALITIES, pictures

METHODS = own_names("method")


class TestSchedule:
    @pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
    @pytest.mark.parametrize("warmup", [0.0, 0.3, 2.0, 2.5, 6.0])
    def test_rates_by_a_walk_through_the_run(self, schedule: Any, warmup: float) -> None:
        found = Schedule(Train(lr=0.4, epochs=2, schedule=schedule, warmup=warmup), rounds=3)
        rates = [of_epoch for r in (1, 2, 3) for of_epoch in found.passes(r, 5)]
        for epoch, of_epoch in enumerate(rates):
            passed = max(0.0, epoch - warmup) / max(6 - warmup, 1e-9)
            after = {"constant": 1, "cosine": math.cos(math.pi * passed / 2) ** 2, "linear": 1 - passed}[schedule]
            for step, rate in enumerate(of_epoch):
                taken = 5 * epoch + step + 1
                rising = taken / (5 * warmup) if taken < 5 * warmup else 1
                assert rate == pytest.approx(0.4 * rising * after)
        assert max(rate for of_epoch in rates for rate in of_epoch) == pytest.approx(0.4)
        assert min(rate for of_epoch in rates for rate in of_epoch) > 0

    def test_a_resumed_run_with_every_option_ends_with_the_same_bits(self, tiny_shards: Path, tmp_path: Path) -> None:
        chosen = experiment(
            federation__rounds=4, train__warmup=1.5, train__schedule="linear", train__clip_norm=0.5,
            train__label_smoothing=0.1, train__class_weights="inverse", train__freeze={"image": 2},
        )  # fmt: skip
        go(chosen, tiny_shards, tmp_path / "whole")
        with pytest.raises(Crash):
            go(chosen, tiny_shards, tmp_path / "broken", crash_in=2)
        go(chosen, tiny_shards, tmp_path / "broken", resume=True)
        whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
        assert all(torch.equal(whole[key], broken[key]) for key in whole)
        assert metrics(tmp_path / "whole") == metrics(tmp_path / "broken")


def step_of(model: MultimodalModel, method: str, criterion: Criterion | None = None, **options: Any) -> Step:
    """The step of a round without momentum and weight decay."""
    settings = Train(lr=RATE, momentum=0, weight_decay=0, **options)
    chosen, objective = criterion or Criterion(), build("method", {"name": method})
    context = objective.begin_round(model.eval(), pictures(2), Round(2, frozenset(MODALITIES[2]), 8, chosen))
    return Step(model.train(), objective, context, chosen, make_optimizer(model, settings), settings)


def change(method: str, batch: Batch, criterion: Criterion | None = None, **options: Any) -> torch.Tensor:
    """The change of all parameters by one step, as one vector, divided by the learning rate."""
    model = made(method)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    torch.manual_seed(0)
    step_of(model, method, criterion, **options).take(batch, RATE)
    return (nn.utils.parameters_to_vector(model.parameters()).detach() - before) / -RATE


class TestClipping:
    def test_by_hand_on_a_linear_model(self) -> None:
        model = nn.Linear(2, 1)
        optimizer = make_optimizer(model, Train(lr=1.0))
        for most, factor in ((2.0, 2 / 13), (50.0, 1.0)):  # the norm of (3, 4, 12) is 13
            model.weight.grad, model.bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([12.0])
            clip_gradients(optimizer, most)
            assert model.weight.grad[0].tolist() == pytest.approx([3 * factor, 4 * factor], rel=1e-6)
            assert model.bias.grad.tolist() == pytest.approx([12 * factor], rel=1e-6)

    @pytest.mark.parametrize("method", ["fedavg", "ogm-ge"])
    def test_a_step_moves_by_the_norm_and_in_the_same_direction(self, method: str) -> None:
        free, cut = change(method, pictures(2)), change(method, pictures(2), clip_norm=0.01)
        assert float(cut.norm()) == pytest.approx(0.01, rel=1e-2)
        assert float(torch.cosine_similarity(free, cut, dim=0)) == pytest.approx(1, abs=1e-3)
        assert torch.equal(change(method, pictures(2), clip_norm=1e6), free)

    def test_two_halves_are_clipped_once_on_their_sum(self) -> None:
        halved = change("fedavg", pictures(2), Hungry(13), clip_norm=0.01)
        assert torch.allclose(halved, change("fedavg", pictures(2), clip_norm=0.01), atol=1e-5)


class Hungry(Criterion):
    """A criterion that needs too much memory for more than `room` rows."""

    def __init__(self, room: int, weights: torch.Tensor | None = None, smoothing: float = 0.0) -> None:
        super().__init__(weights, smoothing)
        self.room = room

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if len(labels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().__call__(logits, labels)


class TestCriterion:
    def test_by_numpy(self) -> None:
        logits, labels = torch.randn(9, CLASSES), torch.arange(9) % CLASSES
        weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
        for w, s in ((None, 0.0), (None, 0.3), (weights, 0.0), (weights, 0.3)):
            expected = smoothed(logits, labels, torch.ones(CLASSES) if w is None else w, s)
            assert float(Criterion(w, s)(logits, labels)) == pytest.approx(expected, rel=1e-5)

    def test_inverse_shares_by_hand(self) -> None:
        labels = torch.tensor([0, 0, 0, 1, 3, 3, 3, 3])  # N = 8, K' = 3; class 2 does not occur
        assert inverse_shares(labels, 4).tolist() == pytest.approx([8 / 9, 8 / 3, 1, 8 / 12])
        assert float(inverse_shares(labels, 4)[labels].mean()) == pytest.approx(1)

    def test_given_weights_are_by_name_and_others_are_one(self) -> None:
        chosen = tiny("fedavg", train__class_weights={"three": 2.5})
        logits, labels = torch.randn(9, CLASSES), torch.arange(9) % CLASSES
        expected = smoothed(logits, labels, torch.tensor([1, 1, 2.5, 1]), 0)
        assert float(criterion_of(chosen, labels, NAMES, CPU)(logits, labels)) == pytest.approx(expected, rel=1e-5)
        with pytest.raises(ConfigError, match=r"train.class_weights.three: unknown class 'three'; known: one, two"):
            criterion_of(chosen, labels, NAMES[:2], CPU)

    @pytest.mark.parametrize("method", METHODS)
    def test_a_balanced_client_has_the_same_loss_with_inverse_weights(self, method: str) -> None:
        whole = pictures(2)
        batch = Batch(whole.inputs, whole.origin, torch.arange(24) % CLASSES)
        balanced = criterion_of(tiny(method, train__class_weights="inverse"), batch.labels, NAMES, CPU)
        weighted = Criterion(torch.tensor([0.2, 1.0, 2.0, 3.0]))
        plain, same, other = (losses(method, batch, criterion) for criterion in (Criterion(), balanced, weighted))
        assert same == pytest.approx(plain, rel=1e-5)
        differs = {name for name, value in other.items() if value != pytest.approx(plain[name], rel=1e-5)}
        assert differs == {"fused", "unimodal", "views"} & plain.keys()

    @pytest.mark.parametrize("method", ["fedavg", "fedavg-heads", "fedprox", "fedcmi-gated"])
    def test_two_halves_have_the_gradient_of_the_whole_batch(self, method: str) -> None:
        batch, weights = pictures(2).rows(torch.arange(15)), torch.tensor([0.2, 1.0, 2.0, 9.0])
        whole = change(method, batch, Criterion(weights, 0.2))
        halved = change(method, batch, Hungry(8, weights, 0.2))
        assert torch.allclose(halved, whole, atol=1e-5)
        assert not torch.allclose(change(method, batch), whole, atol=1e-3)

    @pytest.mark.parametrize("precision", ["bfloat16", "float16"])
    def test_mixed_precision(self, precision: str) -> None:
        options: dict[str, Any] = {"train__label_smoothing": 0.1, "train__class_weights": "inverse"}
        found = [
            train(made("fedavg-heads"), pictures(2), tiny("fedavg-heads", **options, **more), 2, "a", NAMES)
            for more in ({}, {"train__precision": precision, "train__clip_norm": 100.0})
        ]
        assert found[1] == pytest.approx(found[0], rel=0.05)


def losses(method: str, batch: Batch, criterion: Criterion) -> Mapping[str, float]:
    objective, model = build("method", {"name": method}), made(method).eval()
    for value in model.parameters():
        if not value.any():  # equal logits have the same loss with any weights
            torch.nn.init.normal_(value)
    context = objective.begin_round(model, batch, Round(2, frozenset(batch.modalities), 8, criterion))
    return {name: float(term.detach()) for name, term in objective.loss(model, batch, context).items()}


class Layered(ImageEncoder):
    """Its last layer learns at a tenth of the rate."""

    def lr_factor(self, name: str) -> float:
        return 0.1 if name.startswith("net.project.") else 1.0


class TestGroups:
    def test_an_encoder_scales_the_learning_rates_of_its_parameters(self) -> None:
        torch.manual_seed(0)
        architecture = build("model", {"name": "late-fusion"})
        model = architecture.build({"a": Layered(8, 1, "cnn", 6), "b": ImageEncoder(8, 1, "cnn", 6)}, CLASSES)
        slow = set(model.encoder("a").net.project.parameters())
        before = {value: value.detach().clone() for value in model.parameters()}
        step_of(model, "fedavg").take(pictures(2), 0.3)
        for value, old in before.items():
            assert value.grad is not None
            rate = 0.03 if value in slow else 0.3
            assert torch.allclose(value, old - rate * value.grad, atol=1e-7)

    def test_without_factors_there_is_one_group(self) -> None:
        model = made("fedcmi")
        (group,) = make_optimizer(model, Train(lr=0.1)).param_groups
        assert group["params"] == list(model.parameters())
        assert group["weight_decay"] == 1e-4

    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_biases_and_norms_may_have_no_decay(self, optimizer: Any) -> None:
        model = made("fedavg")
        made_for = make_optimizer(model, Train(lr=0.1, optimizer=optimizer, decay_norms=False))
        decay = {value: group["weight_decay"] for group in made_for.param_groups for value in group["params"]}
        assert decay == {value: 1e-4 if value.dim() > 1 else 0 for value in model.parameters()}
        set_rate(made_for, 0.05)
        assert {group["lr"] for group in made_for.param_groups} == {0.05}


class TestFreezing:
    @pytest.mark.parametrize("method", METHODS)
    def test_an_encoder_is_untouched_for_its_rounds_and_then_trains(self, method: str) -> None:
        model, chosen = made(method), tiny(method, train__freeze={"a": 3})
        for number in (2, 3, 4):  # round 1 of `discriminant` trains nothing
            before = get_params(model)
            train(model, pictures(2), chosen, number, "s", NAMES)
            moved = {name for name, value in get_params(model).items() if not torch.equal(value, before[name])}
            assert any(name.startswith("branches.a.encoder.") for name in moved) == (number == 4)
            assert any(name.startswith("branches.b.encoder.") for name in moved)
            assert any(".encoder." not in name for name in moved)
            if number < 4:
                assert all(value.grad is None for value in model.encoder("a").parameters())

    def test_running_statistics_stay(self) -> None:
        encoders = {"a": ImageEncoder(8, 1, "resnet18", 6), "b": ImageEncoder(8, 1, "cnn", 6)}
        model = build("model", {"name": "late-fusion"}).build(encoders, CLASSES)
        before = {name: value.clone() for name, value in model.encoder("a").state_dict().items()}
        train(model, pictures(2), tiny("fedavg", train__freeze={"a": 1}), 1, "s")
        assert all(torch.equal(value, before[name]) for name, value in model.encoder("a").state_dict().items())

    def test_the_proximal_term_leaves_frozen_parameters_out(self) -> None:
        model = made("fedprox")
        freeze_encoders(model, ["a"])
        objective = build("method", {"name": "fedprox"})
        context = objective.begin_round(model, pictures(2), Round(1, frozenset("ab"), 8))
        assert not any(name.startswith("branches.a.encoder.") for name in context.received)
        assert any(name.startswith("branches.b.encoder.") for name in context.received)

    def test_a_site_that_does_not_hold_the_modality_trains(self) -> None:
        examples = pictures(2)
        only = Batch({"b": examples.inputs["b"]}, {"b": examples.origin["b"]}, examples.labels)
        assert train(made("fedavg"), only, tiny("fedavg", train__freeze={"a": 1}), 1, "s")


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"train__warmup": 3.0}, "train.warmup is 3 epochs, but the run has 2"),
    ({"train__freeze": {"video": 1}}, "train.freeze.video: unknown modality 'video'"),
    ({"train__freeze": {"image": 3}}, "train.freeze.image is 3, but federation.rounds is 2"),
    ({"train__clip_norm": 0}, "train.clip_norm"),
    ({"train__label_smoothing": 1.0}, "train.label_smoothing"),
    (
        {"train__class_weights": "balanced"},
        "train.class_weights: inverse, weights by class name, or null is needed, not 'balanced'",
    ),
    (
        {"train__class_weights": {"one": 0.0}},
        "train.class_weights: the weight of 'one' must be a number greater than 0, not 0.0",
    ),
    (
        {"data__classes": ["one", "two"], "train__class_weights": {"ones": 2.0}},
        "train.class_weights.ones: unknown class 'ones'; known: one, two; did you mean 'one'?",
    ),
]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=lambda value: str(value)[:60])
def test_mistakes_of_options_and_of_their_combinations(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as found:
        experiment(**options)
    assert words in str(found.value)


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(ConfigError) as found:
        experiment(train__warmup=9.0, train__freeze={"video": 9})
    assert all(words in str(found.value) for words in ("train.warmup", "unknown modality", "train.freeze.video is 9"))


def test_a_method_without_the_criterion_refuses_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    from client.methods.fedavg import FedAvg

    monkeypatch.setattr(FedAvg, "uses_criterion", False)
    with pytest.raises(ConfigError) as found:
        experiment(method="fedavg", train__label_smoothing=0.1, train__class_weights="inverse")
    for option in ("label_smoothing", "class_weights"):
        assert f"train.{option}: the method computes its loss without it" in str(found.value)
    assert experiment(method="fedavg")


def test_server_and_site_refuse_weights_of_classes_that_do_not_exist(tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(train__class_weights={"eleven": 2.0})
    with pytest.raises(ConfigError, match=r"train.class_weights.eleven: unknown class 'eleven'; known: "):
        go(chosen, tiny_shards, tmp_path / "run")
    for message in (query_message(chosen), train_message(chosen, ["audio", "image"])):
        reply = Site(tiny_shards / "client-1").answer(message)
        assert "train.class_weights.eleven: unknown class" in str(reply["body"]["json"])


class TestSteps:
    """`train.steps` in place of `train.epochs`."""

    @pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
    @pytest.mark.parametrize("warmup", [0.0, 3.0, 10.0, 21.0])
    def test_rates_by_a_walk_through_the_run(self, schedule: Any, warmup: float) -> None:
        found = Schedule(Train(lr=0.4, steps=7, schedule=schedule, warmup=warmup), rounds=3)
        passes = [of_pass for number in (1, 2, 3) for of_pass in found.passes(number, 3)]
        assert [len(of_pass) for of_pass in passes] == [3, 3, 1] * 3
        rates = [rate for of_pass in passes for rate in of_pass]
        for step, rate in enumerate(rates):
            passed = max(0.0, step - warmup) / max(21 - warmup, 1e-9)
            after = {"constant": 1, "cosine": math.cos(math.pi * passed / 2) ** 2, "linear": 1 - passed}[schedule]
            assert rate == pytest.approx(0.4 * (min(1, (step + 1) / warmup) if warmup else 1) * after)

    @pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
    def test_a_client_stops_after_its_steps_within_a_pass_too(
        self, steps: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[int]] = []
        take = Step.take

        def noted(self: Step, batch: Batch, rate: float) -> dict[str, torch.Tensor]:
            seen.append(batch.keys.tolist())
            return take(self, batch, rate)

        monkeypatch.setattr(Step, "take", noted)
        chosen = tiny("fedavg", train__epochs=None, train__steps=steps)
        train(made("fedavg"), pictures(2), chosen, 1, "s")  # 24 examples: three steps per pass
        assert len(seen) == steps
        passes = [[key for keys in seen[first : first + 3] for key in keys] for first in range(0, steps, 3)]
        assert all(len(set(keys)) == len(keys) for keys in passes)
        assert all(sorted(keys) == list(range(24)) for keys in passes[: steps // 3])
        assert len({tuple(keys) for keys in passes}) == len(passes)

    @pytest.mark.parametrize("method", METHODS)
    def test_whole_passes_have_the_bits_of_epochs(self, method: str) -> None:
        ends, losses = [], []
        for options in ({"train__epochs": 2}, {"train__epochs": None, "train__steps": 6}):
            model = made(method)
            losses.append(train(model, pictures(2), tiny(method, **options), 2, "s", NAMES))
            ends.append(get_params(model))
        assert losses[0] == losses[1]
        assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())

    def test_losses_are_those_of_the_last_whole_pass(self) -> None:
        found = [
            train(made("fedavg"), pictures(2), tiny("fedavg", **options), 1, "s")
            for options in ({"train__epochs": 1}, {"train__epochs": None, "train__steps": 5})
        ]
        assert found[0] == found[1]

    def test_every_pass_has_its_own_augmentation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from common.data.augmentation import Augmentation

        purposes = []
        monkeypatch.setattr(Augmentation, "of", lambda *given: purposes.append(given[3:]))
        train(made("fedavg"), pictures(2), tiny("fedavg", train__epochs=None, train__steps=4), 3, "s")
        assert purposes == [(3, 0, "s"), (3, 1, "s")]

    def test_an_experiment_has_epochs_or_steps(self) -> None:
        assert (Train(lr=0.1).epochs, Train(lr=0.1, epochs=None).epochs) == (1, 1)
        assert (Train(lr=0.1, steps=5).epochs, Train(lr=0.1, steps=5).steps) == (None, 5)
        chosen = experiment(train__epochs=None, train__steps=5)
        assert "  epochs: null\n" in chosen.to_yaml() and "  steps: 5\n" in chosen.to_yaml()
        with pytest.raises(ConfigError, match=r"train: epochs is 1 and steps is 5: a round has one of them"):
            experiment(train__epochs=1, train__steps=5)
        with pytest.raises(ConfigError, match=r"train.warmup is 11 steps, but the run has 10"):
            experiment(train__epochs=None, train__steps=5, train__warmup=11.0)

    def test_a_resumed_run_ends_with_the_same_bits(self, tiny_shards: Path, tmp_path: Path) -> None:
        chosen = experiment(federation__rounds=3, train__epochs=None, train__steps=5, train__schedule="linear")
        go(chosen, tiny_shards, tmp_path / "whole")
        with pytest.raises(Crash):
            go(chosen, tiny_shards, tmp_path / "broken", crash_in=3)
        go(chosen, tiny_shards, tmp_path / "broken", resume=True)
        whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
        assert all(torch.equal(whole[key], broken[key]) for key in whole)
