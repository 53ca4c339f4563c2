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
from common.metrics import Tally
from common.modality import subset_name, subsets
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
    validation: dict[Name, Tally] = Field(default_factory=dict, max_length=SOME)
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


def read_training_reply(content: Mapping[str, Any], server_round: int, site: Site) -> TrainingReply:
    """The figures of a reply to the training message of a round.

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
    for subset, tally in reply.validation.items():
        if reason := _implausible(subset, tally, site):
            raise WireError(f"validation of {subset}: {reason}")
    return reply


def _implausible(subset: str, tally: Tally, site: Site) -> str | None:
    """The reason why counts cannot come from predictions at this site, or None."""
    if subset not in map(subset_name, subsets(site.modalities)):
        return f"the site has only {', '.join(sorted(site.modalities))}"
    if any(len(counts) != len(site.classes) for counts in tally):
        return "the counts do not have one number per class"
    if tally.examples > site.num_examples:
        return f"{tally.examples} examples, but the site's introduction has {site.num_examples}"
    if sum(tally.predicted) != tally.examples:
        return f"{sum(tally.predicted)} predictions of {tally.examples} examples"
    rows = zip(tally.correct, tally.total, tally.predicted, tally.confidence, strict=True)
    if any(hits > min(n, said) or not 0 <= sure <= n * (1 + 1e-9) for hits, n, said, sure in rows):
        return "a class has more hits or more confidence than examples"
    return None


def _read(kind: type[R], content: Mapping[str, Any]) -> R:
    try:
        return kind.model_validate_json(
            json.dumps(content)
        )  # values are not converted, but a Tally may come as a mapping
    except RecursionError:
        raise WireError("malformed reply: nested too deeply") from None
    except Invalid as error:
        found = error.errors(include_url=False)[0]
        where = of_others(".".join(map(str, found["loc"])), 100)
        raise WireError(f"malformed reply: {where}: {of_others(found['msg'], 300)}") from None
