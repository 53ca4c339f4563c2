"""The contract of a method, with two and with three modalities."""

from typing import Any

import pytest
import torch

from client.freezing import freeze_unheld
from client.methods.base import Method, Round
from common.config.component import build, names
from common.models.base import MultimodalModel
from common.types import Batch
from fedmosaic.testing.devices import OnEveryDevice
from fedmosaic.testing.examples import CLASSES, MODALITIES, picture_encoders, pictures, spoiled


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
