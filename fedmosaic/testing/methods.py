"""The contract of a method, for each of its tasks, with two or three modalities, on the processor or another device."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, get_args

import pytest
import torch

from client.freezing import freeze_unheld
from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from common.blocks import SHARED, block_of
from common.config.component import build, names
from common.config.task import TaskName
from common.modality import Modality
from common.models.base import MultimodalModel
from common.types import CPU, Batch
from fedmosaic.testing.criteria import changed, formula, plain
from fedmosaic.testing.devices import on
from fedmosaic.testing.examples import CLASSES, picture_encoders, pictures, spoiled
from fedmosaic.testing.pretend_device import FAR


class Case(NamedTuple):
    """The task of the targets, the number of modalities, and the device."""

    task: TaskName
    modalities: int
    device: torch.device

    def __str__(self) -> str:
        return f"{self.task}-{self.modalities}-{self.device}"


CASES = [
    Case("single-label", 2, CPU),
    Case("single-label", 3, FAR),
    Case("multi-label", 2, FAR),
    Case("regression", 3, CPU),
]
"""Every task, number of modalities and device, and both numbers on both devices."""


class MethodContract:
    """Override the fixture `method`."""

    @pytest.fixture
    def method(self) -> Any:
        """The method with its options."""
        raise NotImplementedError

    @pytest.fixture(params=CASES, ids=str)
    def case(self, method: Any, request: pytest.FixtureRequest) -> Case:
        """A task, a number of modalities and a device. The tests of tasks that the method does not declare are
        skipped."""
        case: Case = request.param
        if case.task not in method.tasks:
            pytest.skip(f"the method is not defined for {case.task}")
        return case

    @pytest.fixture
    def task(self, case: Case) -> TaskName:
        """The task of the targets."""
        return case.task

    @pytest.fixture
    def count(self, case: Case) -> int:
        """The number of modalities."""
        return case.modalities

    @pytest.fixture
    def device(self, case: Case) -> Iterator[torch.device]:
        """The device of the model."""
        with on(case.device) as device:
            yield device

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Options of the model, e.g. for a smaller one."""
        return {}

    @pytest.fixture
    def model(
        self, method: Any, task: TaskName, count: int, options: dict[str, Any], device: torch.device
    ) -> MultimodalModel:
        """A small model of the architecture that the method needs."""
        architecture = build("model", {"name": method.model, **options})
        model: MultimodalModel = architecture.build(picture_encoders(count), CLASSES)
        model.task = task
        return model.to(device)

    def test_is_a_method_whose_model_and_strategy_exist(self, method: Any) -> None:
        assert isinstance(method, Method)
        assert method.model in names("model")
        assert method.strategy in names("strategy")
        assert method.tasks and method.tasks <= set(get_args(TaskName))

    def test_a_few_steps_lower_the_loss_and_terms_are_finite_scalars(
        self, method: Any, model: MultimodalModel, task: TaskName, count: int, device: torch.device
    ) -> None:
        batch = pictures(count, 0.2, task)
        context = method.begin_round(model.eval(), batch, second_round(batch.modalities, plain(task, device)))
        batch = batch.to(device)
        optimizer = torch.optim.SGD(model.train().parameters(), lr=0.02)
        totals = []
        for _ in range(15 if device == CPU else 4):  # an operation on the pretended device takes long
            terms = method.loss(model, batch, context)
            assert all(term.shape == () and term.isfinite() for term in terms.values())
            total = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            method.after_backward(model, context)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)  # a squared error may have a large gradient
            optimizer.step()
            totals.append(float(total.detach()))
        assert totals[-1] < totals[0]

    def test_the_rounds_criterion_enters_the_loss_if_the_method_uses_it(
        self, method: Any, model: MultimodalModel, task: TaskName, count: int, device: torch.device
    ) -> None:
        batch = pictures(count, 0.2, task)
        model.eval()
        criteria, terms = [plain(task, device), changed(task, device)], []
        for criterion in criteria:
            now = second_round(batch.modalities, criterion)
            terms.append(method.loss(model, batch.to(device), method.begin_round(model, batch, now)))
        before, after = ({name: float(term.detach()) for name, term in found.items()} for found in terms)
        assert bool(criteria[1].seen) == method.uses_criterion
        if method.uses_criterion:
            expected = [formula(task)(*call) for call in criteria[1].seen]
            assert any(after["fused"] == pytest.approx(value, rel=1e-4) for value in expected)
        else:
            assert after == before

    def test_two_halves_of_a_batch_have_the_loss_of_the_whole(
        self, method: Any, model: MultimodalModel, task: TaskName, count: int, device: torch.device
    ) -> None:
        batch, criterion = pictures(count, 0.2, task).rows(torch.arange(15)), changed(task, device)
        context = method.begin_round(model.eval(), batch, second_round(batch.modalities, criterion))
        batch, halved = batch.to(device), 0.0
        whole = float(method.loss(model, batch, context)["fused"].detach())
        for rows in torch.arange(15).to(device).tensor_split(2):
            part = batch.rows(rows)
            with criterion.part(part.labels, batch.labels):
                halved += float(method.loss(model, part, context)["fused"].detach()) * len(part) / 15
        if method.uses_criterion:
            assert halved == pytest.approx(whole, rel=1e-4)

    def test_missing_values_cannot_influence_prediction_or_loss(
        self, method: Any, model: MultimodalModel, task: TaskName, count: int, device: torch.device
    ) -> None:
        batch = pictures(count, 0.4, task)
        model.eval()
        there, spoiled_there = batch.to(device), spoiled(batch).to(device)
        assert torch.equal(model.predict(there), model.predict(spoiled_there))
        now = second_round(batch.modalities, plain(task, device))
        contexts = [method.begin_round(model, b, now) for b in (batch, spoiled(batch))]
        losses = [method.loss(model, b, c) for b, c in zip((there, spoiled_there), contexts, strict=True)]
        assert {k: v.item() for k, v in losses[0].items()} == {k: v.item() for k, v in losses[1].items()}

    def test_a_client_with_one_modality_trains_its_block_and_the_shared_one_only(
        self, method: Any, model: MultimodalModel, task: TaskName, count: int, device: torch.device
    ) -> None:
        whole = pictures(count, task=task)
        only = Batch({"b": whole.inputs["b"]}, {"b": whole.origin["b"]}, whole.labels)
        freeze_unheld(model, frozenset("b"))
        context = method.begin_round(model.eval(), only, second_round("b", plain(task, device)))
        torch.stack(list(method.loss(model.train(), only.to(device), context).values())).sum().backward()  # type: ignore[no-untyped-call]
        method.after_backward(model, context)
        method.end_round(model, only, context)
        trained = dict(model.named_parameters())
        moved = {block_of(key) for key, value in trained.items() if value.grad is not None and value.grad.any()}
        assert moved == {"b"} | {SHARED for key in trained if block_of(key) == SHARED}


def second_round(held: Iterable[Modality], criterion: Criterion) -> Round:
    """The second and last round of a client that holds these modalities."""
    return Round(2, frozenset(held), 8, criterion, rounds=2)
