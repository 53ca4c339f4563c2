"""The contract of a method, with two and with three modalities."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client.freezing import freeze_unheld
from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from common.config.component import build, names
from common.models.base import MultimodalModel
from common.types import Batch
from fedmosaic.testing.devices import OnEveryDevice
from fedmosaic.testing.examples import CLASSES, MODALITIES, picture_encoders, pictures, spoiled


class Recorder(Criterion):
    """A criterion that keeps the logits and labels of each call."""

    def __init__(self, weights: Tensor | None = None, smoothing: float = 0.0) -> None:
        super().__init__(weights, smoothing)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of the criterion."""
        self.seen.append((logits.detach().cpu(), labels.cpu()))
        return super().__call__(logits, labels)


def smoothed(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> float:
    """The formula in `Criterion`, for the tests by numpy."""
    u, y, w = logits.double().numpy(), labels.numpy(), weights.double().numpy()
    surprise = np.log(np.exp(u).sum(1, keepdims=True)) - u
    true = w[y] * surprise[np.arange(len(y)), y]
    return float(((1 - smoothing) * true + smoothing * (w * surprise).mean(1)).sum() / w[y].sum())


class MethodContract(OnEveryDevice):
    """Override the fixture `method`."""

    @pytest.fixture
    def method(self) -> Any:
        """The method with its options."""
        raise NotImplementedError

    @pytest.fixture(params=MODALITIES)
    def count(self, request: pytest.FixtureRequest) -> int:
        """The number of modalities."""
        return int(request.param)

    @pytest.fixture
    def model(self, method: Any, count: int, device: torch.device) -> MultimodalModel:
        """A small model of the architecture that the method needs."""
        architecture = build("model", {"name": method.model})
        model: MultimodalModel = architecture.build(picture_encoders(count), CLASSES)
        return model.to(device)

    def test_is_a_method_whose_model_and_strategy_exist(self, method: Any) -> None:
        assert isinstance(method, Method)
        assert method.model in names("model")
        assert method.strategy in names("strategy")

    def test_a_few_steps_lower_the_loss_and_terms_are_finite_scalars(
        self, method: Any, model: MultimodalModel, count: int, device: torch.device
    ) -> None:
        batch = pictures(count, missing=0.2)
        context = method.begin_round(model.eval(), batch, Round(2, frozenset(batch.modalities), 8))
        batch = batch.to(device)
        optimizer = torch.optim.SGD(model.train().parameters(), lr=0.02)
        totals = []
        for _ in range(15):
            terms = method.loss(model, batch, context)
            assert all(term.shape == () and term.isfinite() for term in terms.values())
            total = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            method.after_backward(model, context)
            optimizer.step()
            totals.append(float(total.detach()))
        assert totals[-1] < totals[0]

    def test_the_rounds_criterion_enters_the_loss_if_the_method_uses_it(
        self, method: Any, model: MultimodalModel, count: int, device: torch.device
    ) -> None:
        batch, weights = pictures(count, missing=0.2), torch.linspace(0.5, 2, CLASSES)
        model.eval()
        criteria, terms = [Recorder(), Recorder(weights.to(device), 0.2)], []
        for criterion in criteria:
            now = Round(2, frozenset(batch.modalities), 8, criterion)
            terms.append(method.loss(model, batch.to(device), method.begin_round(model, batch, now)))
        plain, changed = ({name: float(term.detach()) for name, term in found.items()} for found in terms)
        assert bool(criteria[1].seen) == method.uses_criterion
        if method.uses_criterion:
            expected = [smoothed(*call, weights, 0.2) for call in criteria[1].seen]
            assert any(changed["fused"] == pytest.approx(value, rel=1e-4) for value in expected)
        else:
            assert changed == plain

    def test_missing_values_cannot_influence_prediction_or_loss(
        self, method: Any, model: MultimodalModel, count: int, device: torch.device
    ) -> None:
        batch = pictures(count, missing=0.4)
        model.eval()
        there, spoiled_there = batch.to(device), spoiled(batch).to(device)
        assert torch.equal(model.predict(there), model.predict(spoiled_there))
        now = Round(2, frozenset(batch.modalities), 8)
        contexts = [method.begin_round(model, b, now) for b in (batch, spoiled(batch))]
        losses = [method.loss(model, b, c) for b, c in zip((there, spoiled_there), contexts, strict=True)]
        assert {k: v.item() for k, v in losses[0].items()} == {k: v.item() for k, v in losses[1].items()}

    def test_a_client_with_one_modality_trains_its_block_and_the_shared_one_only(
        self, method: Any, model: MultimodalModel, count: int, device: torch.device
    ) -> None:
        whole = pictures(count)
        only = Batch({"b": whole.inputs["b"]}, {"b": whole.origin["b"]}, whole.labels)
        freeze_unheld(model, frozenset("b"))
        context = method.begin_round(model.eval(), only, Round(2, frozenset("b"), 8))
        torch.stack(list(method.loss(model.train(), only.to(device), context).values())).sum().backward()  # type: ignore[no-untyped-call]
        method.after_backward(model, context)
        method.end_round(model, only, context)
        moved = {
            key.split(".")[1] if key.startswith("branches") else "shared"
            for key, value in model.named_parameters()
            if value.grad is not None and value.grad.any()
        }
        assert moved == {"b", "shared"}
