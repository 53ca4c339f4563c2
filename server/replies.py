"""What clients say besides parameters: checked, because a site may run other code than ours."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveInt
from pydantic import ValidationError as Invalid

from common.errors import FedmosaicError, WireError
from common.metrics import Tally
from common.types import Modality, Site

Name = Annotated[str, Field(min_length=1, max_length=200)]
Seconds = Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


R = TypeVar("R", bound=_Reply)


class Refusal(_Reply):
    """A site that cannot do what it was asked, and why.

    introduce: it could, but wants to introduce itself again first.
    """

    site: Name
    error: str
    introduce: bool = False


class SiteChangedError(FedmosaicError):
    """A site that is no longer what it introduced itself as."""


class Introduction(_Reply):
    """The answer to the query before the first round."""

    site: Name
    modalities: list[Modality]
    classes: list[str]
    num_examples: PositiveInt
    unreadable: dict[Modality, NonNegativeInt]


class TrainingReply(_Reply):
    """The figures that come with an update."""

    round: int
    num_examples: PositiveInt
    losses: dict[Name, FiniteFloat]
    validation: dict[Name, Tally]
    unreadable: dict[Modality, NonNegativeInt]
    seconds: dict[Name, Seconds]


def read_introduction(content: Mapping[str, Any]) -> Site | Refusal:
    """The site that introduces itself, or its refusal.

    Raises WireError when the content is neither.
    """
    if "error" in content:
        return _read(Refusal, content)
    said = _read(Introduction, content)
    return Site(said.site, frozenset(said.modalities), tuple(said.classes), said.num_examples, said.unreadable)


def read_training_reply(content: Mapping[str, Any], server_round: int, classes: int) -> TrainingReply:
    """The figures of a reply to the training message of a round.

    Raises WireError when the site refused or when the content is not that, SiteChangedError when it wants to introduce
    itself again.
    """
    if "error" in content:
        refusal = _read(Refusal, content)
        raise SiteChangedError(refusal.error) if refusal.introduce else WireError(refusal.error)
    reply = _read(TrainingReply, content)
    if reply.round != server_round:
        raise WireError(f"the reply is of round {reply.round}")
    if any(len(counts) != classes for tally in reply.validation.values() for counts in tally):
        raise WireError("the validation counts are not by class")
    return reply


def _read(kind: type[R], content: Mapping[str, Any]) -> R:
    try:
        return kind.model_validate_json(json.dumps(content))  # strict, but a Tally may come as a mapping
    except Invalid as error:
        found = error.errors(include_url=False)[0]
        where = ".".join(map(str, found["loc"]))
        raise WireError(f"malformed reply: {where}: {found['msg']}") from None
