"""The contract of a model, with two and with three modalities."""

from typing import Any

import pytest
import torch

from common.blocks import get_params, select, set_params
from common.models.base import ModelOptions, MultimodalModel
from fedmosaic.testing.devices import OnEveryDevice
from fedmosaic.testing.examples import CLASSES, MODALITIES, picture_encoders, pictures, spoiled


class ModelContract(OnEveryDevice):
    """Override the fixture `architecture`."""

    @pytest.fixture
    def architecture(self) -> Any:
        """The model's options."""
        raise NotImplementedError

    @pytest.fixture(params=MODALITIES)
    def count(self, request: pytest.FixtureRequest) -> int:
        """The number of modalities."""
        return int(request.param)

    @pytest.fixture
    def model(self, architecture: Any, count: int, device: torch.device) -> MultimodalModel:
        """The model for small pictures."""
        model: MultimodalModel = architecture.build(picture_encoders(count), CLASSES)
        return model.to(device).eval()

    def test_is_a_model_of_its_modalities(
        self, architecture: Any, model: MultimodalModel, count: int, device: torch.device
    ) -> None:
        assert isinstance(architecture, ModelOptions)
        assert isinstance(model, MultimodalModel)
        assert model.modalities == MODALITIES[count]
        assert model.encoder("a").width == 6

    def test_every_pattern_of_modalities_gives_finite_logits(
        self, model: MultimodalModel, count: int, device: torch.device
    ) -> None:
        batch = pictures(count).to(device)
        for kept in (MODALITIES[count][:1], MODALITIES[count][1:], MODALITIES[count]):
            logits = model.predict(batch.only(kept))
            assert logits.shape == (len(batch), CLASSES)
            assert logits.isfinite().all()
            assert model.represent_all(batch.only(kept)).isfinite().all()

    def test_missing_values_cannot_influence_anything(
        self, model: MultimodalModel, count: int, device: torch.device
    ) -> None:
        batch = pictures(count, missing=0.4).to(device)
        assert torch.equal(model.predict(batch), model.predict(spoiled(batch)))
        assert torch.equal(model.represent(batch), model.represent(spoiled(batch)))

    def test_an_examples_prediction_does_not_depend_on_its_batch(
        self, model: MultimodalModel, count: int, device: torch.device
    ) -> None:
        batch = pictures(count, missing=0.2).to(device)
        rows = torch.arange(0, len(batch), 3).to(device)
        assert torch.allclose(model.predict(batch)[rows], model.predict(batch.rows(rows)), atol=1e-5)

    def test_the_blocks_of_a_client_are_enough_for_its_modalities(
        self, architecture: Any, model: MultimodalModel, count: int, device: torch.device
    ) -> None:
        other = architecture.build(picture_encoders(count), CLASSES).to(device).eval()
        set_params(other, select(get_params(model), ["b"]))
        batch = pictures(count).to(device).only(["b"])
        assert torch.equal(other.predict(batch), model.predict(batch))
