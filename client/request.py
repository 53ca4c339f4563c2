"""The messages of a server, checked before the site reads anything, because a server may run code other than this
project's."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from flwr.app import Message
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from common.config.experiment import Experiment
from common.config.plugins import Plugin
from common.config.reading import from_json
from common.errors import WireError
from common.exchange import wire
from common.modality import Modality


class _Package(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: Annotated[str, Field(max_length=100, pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Asked(BaseModel):
    """The body of a message.

    experiment: the resolved experiment as JSON. plugins: the packages that contain its components, with their content
    at the server. round: in training messages, the number of the round, from 1. modalities: in training messages, the
    modalities of the site's introduction, sorted.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    experiment: str
    plugins: list[_Package] = Field(default_factory=list, max_length=50)
    round: Annotated[PositiveInt, Field(le=10**9)] | None = None
    modalities: list[Modality] = Field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """An experiment. For a training message also the round, and the modalities of the site's introduction."""

    experiment: Experiment
    round: int
    modalities: list[Modality]


def read_body(message: Message) -> Asked:
    """Read the body of a query or of a training message. Checks its form; loads no code.

    Raises WireError.
    """
    try:
        return Asked.model_validate_json(json.dumps(wire.read_body(message)))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        raise WireError(f"malformed request: {'.'.join(map(str, found['loc']))}: {found['msg']}") from None


def packages(asked: Asked) -> Sequence[Plugin]:
    """The plugins of the server's run, with the digest of their content at the server."""
    return [Plugin(package.name, package.version, package.digest) for package in asked.plugins]


def read_request(asked: Asked, training: bool) -> Request:
    """The request of a query or of a training message. Loads the components of the experiment, and so the code of those
    plugins that the current context allows.

    Raises WireError, ConfigError.
    """
    if training and asked.round is None:
        raise WireError("malformed request: round: a training message needs a round")
    return Request(from_json(asked.experiment), asked.round or 0, asked.modalities)
