"""What a completer is: a frozen model that makes a missing modality of an example from another one."""

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
    """One value to make. source: the value of the modality it is made from. seeds: one a candidate."""

    source: Raw
    prompt: str
    seeds: Sequence[int]


class Generator(ABC):
    """A loaded model. What it makes of a request is a function of the request alone, whatever else is in the batch."""

    @abstractmethod
    def generate(self, requests: Sequence[Request]) -> list[list[Raw]]:
        """The candidates of each request.

        Raises ValueError for a source that is not of the kind it works from.
        """


class CompleterOptions(Component):
    """Base of the completers' options."""

    from_prompt: ClassVar[bool] = False
    """Whether a prompt with the name of a class is enough, without a source."""

    source: Modality
    """The modality that the missing one is made from."""
    model: str
    """A name, see `common.frozen.pretrained`."""
    candidates: int = Field(1, ge=1)
    """How many are made; the one closest to the source by the ranker's CLIP score is kept (beyond the paper)."""
    ranker: str | None = None
    """A CLIP or CoCa model of open_clip. None: no score is taken."""
    reject_below: float | None = Field(None, ge=-1, le=1)
    """A kept candidate with a lower score is thrown away, and the value stays missing."""
    class_name: bool = True
    """Whether the prompt names the class, which is the training label (2.2 of docs/methods.md)."""
    seed: int = Field(1, ge=0)
    """Of everything that is drawn."""
    batch_size: int = Field(16, ge=1)
    """Requests at a time."""

    @model_validator(mode="after")
    def _ranker_where_needed(self) -> Self:
        if self.ranker is None and (self.candidates > 1 or self.reject_below is not None):
            raise ValueError("candidates and reject_below need a ranker")
        return self

    @abstractmethod
    def prompt(self, label: str, kind: str, source: Raw | None) -> str:
        """What the model is told. label: "" if it shall not be named; kind: "" if unknown; source: None for nothing but
        a class."""

    @abstractmethod
    def load(self, modality: Modality, device: str) -> Generator:
        """The model, to make values of this modality.

        Raises ModelError.
        """


def subject(label: str, kind: str) -> str:
    """ "A photo of {class name}, a kind of {kind}", coarse to fine (2.2), with what is known of it."""
    if label:
        return f"A photo of {label}, a kind of {kind}" if kind else f"A photo of {label}"
    return f"A photo of a {kind}" if kind else "A photo"
