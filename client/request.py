"""What a server asks for: checked before the site is touched, because a server may run other code than ours."""

import json
from dataclasses import dataclass
from typing import Annotated

from flwr.app import Message
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from common.config.experiment import Experiment, from_json
from common.errors import WireError
from common.exchange import wire
from common.modality import Modality


class _Asked(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    experiment: str
    round: Annotated[PositiveInt, Field(le=10**9)] | None = None
    modalities: list[Modality] = Field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """An experiment and, of a training message, the round and the modalities that the site introduced itself with."""

    experiment: Experiment
    round: int
    modalities: list[Modality]


def read_request(message: Message, training: bool) -> Request:
    """The request of a query or of a training message.

    Raises WireError, ConfigError.
    """
    try:
        asked = _Asked.model_validate_json(json.dumps(wire.read_body(message)))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise WireError(f"malformed request: {'.'.join(map(str, found['loc']))}: {found['msg']}") from None
    if training and asked.round is None:
        raise WireError("malformed request: round: a training message needs one")
    return Request(from_json(asked.experiment), asked.round or 0, asked.modalities)
