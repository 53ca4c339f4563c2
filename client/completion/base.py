"""The interface of completers. A completer generates a missing modality of an example from another one, with a frozen
model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from pydantic import Field, model_validator

from common.config.component import Component
from common.media.values import Raw
from common.modality import Modality


@dataclass(frozen=True)
class Request:
    """A request for one value. source: the value of the modality from which it is generated. seeds: one per
    candidate."""

    source: Raw
    prompt: str
    seeds: Sequence[int]


class Generator(ABC):
    """A loaded model. Its result for a request depends only on the request, not on other requests in the batch."""

    @abstractmethod
    def generate(self, requests: Sequence[Request]) -> list[list[Raw]]:
        """The candidates for each request.

        Raises ValueError when the model cannot use this kind of source.
        """


class CompleterOptions(Component):
    """The base class of the completers' options."""

    from_prompt: ClassVar[bool] = False
    """Whether the model can generate a value from a prompt with the class name, without a source."""

    source: Modality
    """The modality from which the missing one is generated."""
    model: str
    """Name of a frozen model, see `common.frozen.pretrained`."""
    candidates: int = Field(1, ge=1)
    """Number of candidates per value. The candidate with the highest CLIP score of the ranker is kept. The paper has
    only one candidate."""
    ranker: str | None = None
    """Name of the CLIP or CoCa model of open_clip that computes the scores. `null`: no scores."""
    reject_below: float | None = Field(None, ge=-1, le=1)
    """Minimum score. If the best candidate has a lower score, it is rejected and the value stays missing. `null`: no
    candidate is rejected."""
    class_name: bool = True
    """Whether the prompt contains the class name, which is the training label (2.2 of docs/methods.md). For
    multi-label, it contains the names of all labels of the example. For regression, it never contains a label."""
    seed: int = Field(1, ge=0)
    """Seed of all random numbers of the completion."""
    batch_size: int = Field(16, ge=1)
    """Number of requests that the model processes together."""

    @model_validator(mode="after")
    def _ranker_where_needed(self) -> Self:
        if self.ranker is None and (self.candidates > 1 or self.reject_below is not None):
            raise ValueError("candidates and reject_below need a ranker")
        return self

    @abstractmethod
    def prompt(self, label: str, kind: str, source: Raw | None) -> str:
        """The prompt for the model. label: "" if the prompt must not contain it. kind: "" if it is unknown. source:
        None if the value is generated only from a class."""

    @abstractmethod
    def load(self, modality: Modality, device: str) -> Generator:
        """The loaded model for generating values of this modality.

        Raises ModelError.
        """


def subject(label: str, kind: str) -> str:
    """ "A photo of {class name}, a kind of {kind}" (2.2), without the parts that are unknown."""
    if label:
        return f"A photo of {label}, a kind of {kind}" if kind else f"A photo of {label}"
    return f"A photo of a {kind}" if kind else "A photo"
