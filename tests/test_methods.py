"""The contract of every method, with two and with three modalities."""

from dataclasses import replace

import pytest
import torch
from conftest import make_batch

from client.methods.base import Method, Round
from client.train import freeze_unheld
from common.config.component import build, find, names
from common.encoders.image import ImageEncoder
from common.models.base import MultimodalModel
from common.types import Batch, Origin

CLASSES = 4
METHODS = names("method")
SHAPES = {2: ["a", "b"], 3: ["a", "b", "c"]}


def model_for(method: Method[MultimodalModel, object], modalities: list[str]) -> MultimodalModel:
    torch.manual_seed(5)
    encoders = {m: ImageEncoder(8, 1, "cnn", 6) for m in modalities}
    model: MultimodalModel = build("model", {"name": method.model}).build(encoders, CLASSES)
    return model


def batch_for(modalities: list[str], missing: float = 0.0) -> Batch:
    return make_batch(dict.fromkeys(modalities, (1, 8, 8)), 24, CLASSES, missing=missing)


@pytest.mark.parametrize("count", SHAPES)
@pytest.mark.parametrize("name", METHODS)
class TestContract:
    def test_a_few_steps_lower_the_loss_and_terms_are_finite_scalars(self, name: str, count: int) -> None:
        method = build("method", {"name": name})
        model, batch = model_for(method, SHAPES[count]), batch_for(SHAPES[count], missing=0.2)
        context = method.begin_round(model.eval(), batch, Round(2, frozenset(batch.modalities), 8))
        optimizer = torch.optim.SGD(model.train().parameters(), lr=0.02)
        totals = []
        for _ in range(15):
            terms = method.loss(model, batch, context)
            assert all(term.shape == () and term.isfinite() for term in terms.values())
            total = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            totals.append(float(total.detach()))
        assert totals[-1] < totals[0]

    def test_rows_without_a_modality_cannot_influence_prediction_or_loss(self, name: str, count: int) -> None:
        method = build("method", {"name": name})
        model, batch = model_for(method, SHAPES[count]).eval(), batch_for(SHAPES[count], missing=0.4)
        noisy = {
            m: torch.where(batch.has(m).reshape(-1, 1, 1, 1), x, torch.full_like(x, 100.0))
            for m, x in batch.inputs.items()
        }
        spoiled = replace(batch, inputs=noisy)
        assert any((origin == Origin.MISSING).any() for origin in batch.origin.values())
        assert torch.equal(model.predict(batch), model.predict(spoiled))
        now = Round(2, frozenset(batch.modalities), 8)
        losses = [method.loss(model, b, method.begin_round(model, b, now)) for b in (batch, spoiled)]
        assert {k: v.item() for k, v in losses[0].items()} == {k: v.item() for k, v in losses[1].items()}

    def test_every_pattern_of_modalities_gives_finite_logits(self, name: str, count: int) -> None:
        method = build("method", {"name": name})
        model, batch = model_for(method, SHAPES[count]).eval(), batch_for(SHAPES[count])
        for kept in (SHAPES[count][:1], SHAPES[count][1:], SHAPES[count]):
            logits = model.predict(batch.only(kept))
            assert logits.shape == (len(batch), CLASSES)
            assert logits.isfinite().all()

    def test_a_client_with_one_modality_trains_its_block_and_the_shared_one_only(self, name: str, count: int) -> None:
        method = build("method", {"name": name})
        model, whole = model_for(method, SHAPES[count]), batch_for(SHAPES[count])
        only = Batch({"b": whole.inputs["b"]}, {"b": whole.origin["b"]}, whole.labels)
        freeze_unheld(model, frozenset("b"))
        context = method.begin_round(model.eval(), only, Round(2, frozenset("b"), 8))
        torch.stack(list(method.loss(model.train(), only, context).values())).sum().backward()
        moved = {key.split(".")[1] if key.startswith("branches") else "shared"
                 for key, value in model.named_parameters() if value.grad is not None and value.grad.any()}  # fmt: skip
        assert moved == {"b", "shared"}

    def test_its_strategy_and_model_exist(self, name: str, count: int) -> None:
        kind = find("method", name)
        assert issubclass(kind, Method)
        assert kind.model in names("model")
        assert kind.strategy in names("strategy")
