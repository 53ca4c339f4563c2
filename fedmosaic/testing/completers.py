"""The contract of a completer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from client.completion.base import CompleterOptions, Generator, Request
from common.media.values import Raw
from fedmosaic.testing.devices import OnEveryDevice

CLASS = "Foo finch"
ROUNDING = 2
"""Grey values by which a picture may differ, because rounding depends on the size of a batch."""


class CompleterContract(OnEveryDevice):
    """Override the fixtures `completer`, `modality` and `sources`."""

    @pytest.fixture
    def completer(self) -> Any:
        """The completer's options."""
        raise NotImplementedError

    @pytest.fixture
    def modality(self) -> str:
        """The modality that the completer makes."""
        return "text"

    @pytest.fixture
    def sources(self) -> Sequence[Raw]:
        """At least two raw values of the modality that the completer works from."""
        raise NotImplementedError

    @pytest.fixture
    def generator(self, completer: Any, modality: str, device: torch.device) -> Generator:
        """The loaded model."""
        assert isinstance(completer, CompleterOptions)
        generator: Generator = completer.load(modality, str(device))
        return generator

    @pytest.fixture
    def requests(self, completer: Any, sources: Sequence[Raw]) -> list[Request]:
        """A request for each source."""
        return [
            Request(
                source,
                completer.prompt(CLASS, "finch", source),
                [10 * i + c for c in range(completer.candidates)],
            )
            for i, source in enumerate(sources)
        ]

    def test_every_request_gets_its_candidates(self, generator: Generator, requests: list[Request]) -> None:
        made = generator.generate(requests)
        assert [len(found) for found in made] == [len(request.seeds) for request in requests]

    def test_a_value_depends_on_its_request_alone(self, generator: Generator, requests: list[Request]) -> None:
        for request, found in zip(requests, generator.generate(requests), strict=True):
            for one, other in zip(found, generator.generate([request])[0], strict=True):
                assert _alike(one, other)

    def test_a_text_does_not_repeat_the_class_of_its_prompt(
        self, generator: Generator, requests: list[Request]
    ) -> None:
        for found in generator.generate(requests):
            assert not [value for value in found if isinstance(value, str) and "Foo" in value]

    def test_seeds_make_the_candidates_different(self, generator: Generator, requests: list[Request]) -> None:
        if len(requests[0].seeds) > 1:
            found = generator.generate(requests[:1])[0]
            assert not all(_alike(found[0], other) for other in found[1:])


def _alike(one: Raw, other: Raw) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    tolerance = ROUNDING if isinstance(one, Image.Image) else 0
    difference = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return bool(np.abs(difference).max() <= tolerance)
