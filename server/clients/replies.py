"""The parts of replies other than the parameters. They are validated because a site may run modified code."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)
from pydantic import ValidationError as Invalid

from common.columns import DescribedTables, name_mistakes
from common.errors import FedmosaicError, WireError
from common.findings import Findings
from common.modality import subset_name, subsets
from common.tasks.base import Task
from common.tasks.observed import Tally, WrittenPart, check_whole, read_tally
from common.types import Site
from common.words.printable import PLAIN, of_others

MOST = 1e12
"""Upper bound of counts and times. No honest value is larger, and sums over sites stay finite."""
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=PLAIN)]
Base = Annotated[str, Field(max_length=2000, pattern=PLAIN)]
SOME, MANY = 200, 100_000
"""The maximum number of entries of a mapping of figures, and of a list of classes."""
Reason = Annotated[str, BeforeValidator(lambda said: of_others(said, 2000) if isinstance(said, str) else said)]
"""A long reason is cut, not refused, because the site's error is useful at any length."""
Count = Annotated[NonNegativeInt, Field(le=int(MOST))]
Examples = Annotated[PositiveInt, Field(le=int(MOST))]
Loss = Annotated[FiniteFloat, Field(ge=-1e30, le=1e30)]
"""The bound is high, so that the large loss of a diverging run is reported unchanged."""
Seconds = Annotated[NonNegativeFloat, Field(le=MOST)]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


R = TypeVar("R", bound=_Reply)


class Refusal(_Reply):
    """A site that refuses a message, with the reason.

    introduce: whether the site must introduce itself again first.
    """

    site: Name
    error: Reason
    introduce: bool = False


class SiteChangedError(FedmosaicError):
    """A site whose data differ from its introduction."""


class Introduction(_Reply):
    """A site's answer to the server's query before the first round."""

    site: Name
    modalities: Annotated[list[Name], Field(max_length=SOME)]
    classes: Annotated[list[Name], Field(max_length=MANY)]
    num_examples: Examples
    findings: dict[Name, Findings] = Field(default_factory=dict, max_length=SOME)
    bases: dict[Name, Base] = Field(default_factory=dict, max_length=SOME)
    local_dp: Annotated[str, Field(max_length=200, pattern=PLAIN)] = ""
    tables: Annotated[DescribedTables, Field(max_length=SOME)] = Field(default_factory=dict)


class TrainingReply(_Reply):
    """The figures that come with an update. A site's policy may withhold all but the number of examples."""

    round: int
    num_examples: Examples
    losses: dict[Name, Loss] = Field(default_factory=dict, max_length=SOME)
    validation: dict[Name, dict[Name, WrittenPart]] = Field(default_factory=dict, max_length=SOME)
    unreadable: dict[Name, Count] = Field(default_factory=dict, max_length=SOME)
    device: Annotated[str, Field(max_length=200, pattern=PLAIN)] = ""
    seconds: dict[Name, Seconds] = Field(default_factory=dict, max_length=SOME)


def read_introduction(content: Mapping[str, Any]) -> Site | Refusal:
    """The site in an introduction, or the refusal.

    Raises WireError when the content is neither of them.
    """
    if "error" in content:
        return _read(Refusal, content)
    said = _read(Introduction, content)
    modalities, classes = frozenset(said.modalities), tuple(said.classes)
    if other := said.findings.keys() - modalities:
        raise WireError(f"malformed reply: findings of {min(other)}, a modality that the site does not have")
    if other := said.tables.keys() - modalities:
        raise WireError(f"malformed reply: columns of {min(other)}, a modality that the site does not have")
    for modality, columns in said.tables.items():
        mistakes = name_mistakes(columns)
        mistakes += [f"column {name} has more numbers than the site has examples"
                     for name, one in columns.items() if one.count > said.num_examples]  # fmt: skip
        if mistakes:
            raise WireError(f"malformed reply: {modality}: {of_others(mistakes[0], 300)}")
    return Site(
        said.site, modalities, classes, said.num_examples, said.findings, said.local_dp, said.bases, said.tables
    )


def read_training_reply(
    content: Mapping[str, Any], server_round: int, site: Site, task: Task
) -> tuple[TrainingReply, dict[str, Tally]]:
    """The figures of a reply to the training message of a round, and its validation tallies by subset.

    Raises WireError when the site refuses, when the content is malformed, or when it contradicts the site's
    introduction. Raises SiteChangedError when the site must introduce itself again.
    """
    if "error" in content:
        refusal = _read(Refusal, content)
        raise SiteChangedError(refusal.error) if refusal.introduce else WireError(refusal.error)
    reply = _read(TrainingReply, content)
    if reply.round != server_round:
        raise WireError(f"the reply is for round {reply.round}")
    if reply.num_examples > site.num_examples:
        raise WireError(
            f"trained on {reply.num_examples} examples, but the site's introduction has {site.num_examples}"
        )
    if other := reply.unreadable.keys() - site.modalities:
        raise WireError(f"malformed reply: unreadable values of {min(other)}, a modality that the site does not have")
    tallies = {}
    for subset, written in reply.validation.items():
        try:
            tallies[subset] = _tally(subset, written, site, task)
        except ValueError as error:
            raise WireError(f"validation of {subset}: {error}") from None
    return reply, tallies


def _tally(subset: str, written: Mapping[str, WrittenPart], site: Site, task: Task) -> Tally:
    """Raises ValueError with the reason why counts cannot come from predictions at this site."""
    if subset not in map(subset_name, subsets(site.modalities)):
        raise ValueError(f"the site has only {', '.join(sorted(site.modalities))}")
    tally = read_tally(written, task.shapes())
    if tally.examples > site.num_examples:
        raise ValueError(f"{tally.examples} examples, but the site's introduction has {site.num_examples}")
    check_whole(tally)
    task.check(tally.parts)
    return tally


def _read(kind: type[R], content: Mapping[str, Any]) -> R:
    try:
        return kind.model_validate_json(json.dumps(content))  # values are not converted
    except RecursionError:
        raise WireError("malformed reply: nested too deeply") from None
    except Invalid as error:
        found = error.errors(include_url=False)[0]
        where = of_others(".".join(map(str, found["loc"])), 100)
        raise WireError(f"malformed reply: {where}: {of_others(found['msg'], 300)}") from None
