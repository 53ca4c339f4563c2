"""What a site lets go, decided in a file at the site. Nothing that a server sends can widen it.

The file is named by the node's own configuration (`policy`), see docs/explanation/security.md and
deploy/hosts/site.yaml. `client/site.py` enforces it.
"""

import json
import logging
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from client.site_state import SiteState
from common.blocks import Params, valid
from common.config.component import Options
from common.config.experiment import ModalityName, messages
from common.config.yaml_file import read_yaml
from common.data.shard import Shard
from common.errors import ConfigError, FedmosaicError, PolicyError, ShardError, WireError

log = logging.getLogger(__name__)

ALWAYS = ("site", "round", "modalities", "classes", "num_examples", "local_dp")
"""What leaves with every introduction and update: without it there is no federation."""
METRICS = ("losses", "unreadable", "findings", "unusable", "seconds")
LABEL_COUNTS = ("validation",)
"""Tallies are counts by class."""
HARMLESS = (PolicyError, WireError, ConfigError)
"""Errors that, before an example is touched, are about the policy or about what the server sent."""
LINE = re.compile(r"\s*- line \d+:")
"""Begins what is said of a line of a shard's metadata."""
KEPT = "the site's log says why; its policy keeps the reason (metrics)"
"""The one text of all refusals that may depend on an example: their kind, too, would tell of it."""


class LocalDP(Options):
    """Differential privacy of each update towards everybody, the server included."""

    clip: float = Field(gt=0)
    """The L2 norm to which the update's difference to the received parameters is cut."""
    noise: float = Field(gt=0)
    """Standard deviation of the Gaussian noise that is then added to every value, in units of `clip`."""

    def __str__(self) -> str:
        """Short, for logs."""
        return f"local_dp: clip {self.clip:g}, noise {self.noise:g}"


class Policy(Options):
    """Without a file everything holds as the defaults say."""

    modalities: list[ModalityName] | None = Field(None, min_length=1)
    """Those that may take part; any other is treated as if the shard did not have it. None: all."""
    metrics: bool = True
    """Whether losses, timings, counts of unreadable files, and the words of errors leave."""
    label_counts: bool = True
    """Whether counts by class leave: validation tallies, and methods that send such counts in the update. Validation
    figures leave only if `metrics` is true as well."""
    min_examples: int = Field(1, ge=1)
    """An update of fewer training examples does not leave."""
    max_updates: int | None = Field(None, ge=0)
    """How many training messages may reach the examples, ever, over all runs. None: no limit."""
    max_introductions: int | None = Field(200, ge=0)
    """How many introductions may reach the examples in a day (UTC), over all runs. None: no limit."""
    state: Path | None = None
    """The file in which both are counted, relative to the policy's folder. None: <policy>.state.json. It holds as well
    the secret that the site's split into training and validation examples is keyed with."""
    models: list[str] | None = None
    """Names of the frozen models that may be used. None: all that lie in the site's folder of models, and those that
    come with the release."""
    reply_seconds: float | None = Field(None, gt=0, le=86_400)
    """Replies leave at multiples of so many seconds after a message came, so that the time they took tells less of the
    examples; every message then costs up to so many seconds more. None: at once."""
    local_dp: LocalDP | None = None
    """Noise that each update gets. None: updates leave as they are."""

    def part_of(self, shard: Shard) -> Shard:
        """The shard without the modalities that may not take part.

        Raises PolicyError when nothing is left.
        """
        if self.modalities is None:
            return shard
        if not set(self.modalities) & set(shard.info.modalities):
            raise PolicyError("none of the modalities that this site's policy names is in its shard")
        return shard.only(self.modalities)

    def in_words(self) -> list[str]:
        """What holds, a sentence each, for the person who is to know it."""
        taking = ", ".join(self.modalities) if self.modalities is not None else "all modalities of the shard"
        counts = "" if self.label_counts else "; counts by class do not"
        said = [
            f"{taking} may take part",
            f"losses, timings and reasons of errors leave{counts}" if self.metrics else "no figures leave",
        ]
        if self.min_examples > 1:
            said.append(f"no update of fewer than {self.min_examples} training examples leaves")
        if self.max_updates is not None:
            said.append(f"at most {self.max_updates} updates leave, ever")
        if self.models is not None:
            said.append(f"no frozen models are used but {', '.join(self.models) or 'none'}")
        if self.reply_seconds is not None:
            said.append(f"replies leave every {self.reply_seconds:g} s")
        if self.local_dp is None:
            return [*said, "updates leave as they are, without noise"]
        return [*said, f"updates are blurred before they leave ({self.local_dp}), which costs accuracy"]

    def check_examples(self, count: int) -> None:
        """Raises PolicyError when an update of `count` training examples may not leave."""
        if count < self.min_examples:
            raise PolicyError(f"fewer training examples than this site's policy asks for ({self.min_examples})")

    def check_method(self, name: str, counts_labels: bool) -> None:
        """Raises PolicyError when a method sends what may not leave."""
        if counts_labels and not self.label_counts:
            raise PolicyError(f"method {name} sends counts by class, which this site's policy forbids (label_counts)")

    def check_updates(self) -> None:
        """Raises PolicyError when no more training messages may be answered."""
        if self.max_updates is not None:
            self._state().check_updates(self.max_updates)

    def count_update(self) -> None:
        """Count a training message before it reaches an example.

        Raises PolicyError when it may not.
        """
        if self.state is not None:
            self._state().count_update(self.max_updates)

    def count_introduction(self) -> None:
        """Count an introduction before it reaches an example.

        Raises PolicyError when there may be no more today.
        """
        if self.state is not None:
            self._state().count_introduction(self.max_introductions)

    @property
    def secret(self) -> str:
        """What the site's split is keyed with; "" without a policy's file, where a run is repeated by its seed alone.

        Raises PolicyError when it cannot be kept.
        """
        return self._state().secret() if self.state is not None else ""

    @property
    def validates(self) -> bool:
        """Whether validation figures may leave; else nothing is validated, as what cannot be would tell of examples."""
        return self.metrics and self.label_counts

    def hold(self, since: float) -> None:
        """Wait until a reply may leave. since: when the message came, of time.monotonic()."""
        if self.reply_seconds is not None:
            taken = time.monotonic() - since
            time.sleep(math.ceil(taken / self.reply_seconds) * self.reply_seconds - taken)

    def figures(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Of what the site would say, what may leave."""
        allowed = {*ALWAYS}
        if self.metrics:
            allowed |= {*METRICS}
            if self.label_counts:
                allowed |= {*LABEL_COUNTS}
        return {key: value for key, value in said.items() if key in allowed}

    def update(self, received: Params, trained: Params) -> Params:
        """Of the trained parameters, what may leave: as they are, or under local differential privacy."""
        if self.local_dp is None:
            return trained
        from common.exchange.privacy import clip, new_secret, noise  # scipy takes its time to load

        difference = {name: trained[name].double() - received[name].double() for name in trained}
        cut = clip(difference, self.local_dp.clip)
        noisy = noise(cut, self.local_dp.clip * self.local_dp.noise, new_secret(), "update")
        blurred = {name: (received[name].double() + noisy[name]).to(trained[name].dtype) for name in trained}
        return {name: valid(name, value) for name, value in blurred.items()}

    def reason(self, error: Exception, touched: bool) -> str:
        """What may leave of an error's words; all of them stand in the node's log. touched: whether the message may
        have reached an example."""
        if self.metrics or (isinstance(error, HARMLESS) and not touched):
            return f"{type(error).__name__}: {without_lines(str(error)) if isinstance(error, ShardError) else error}"
        log.error("kept from the server: %s", error, exc_info=not isinstance(error, FedmosaicError))
        return f"{PolicyError.__name__}: {KEPT}"

    def _state(self) -> SiteState:
        assert self.state is not None
        return SiteState(self.state)


def without_lines(said: str) -> str:
    """What is wrong with a shard, without what stands in single lines of it: labels, ids, names of files."""
    lines = said.splitlines()
    kept = [line for line in lines if not LINE.match(line)]
    hidden = len(lines) - len(kept)
    return "\n".join([*kept, *([f"  - mistakes in {hidden} lines, which the site's log names"] if hidden else [])])


def read_policy(path: Path | None) -> Policy:
    """The policy in a file; the default one if the node names none.

    Raises PolicyError, with every mistake, when a named file cannot be read.
    """
    if path is None:
        return Policy()
    try:
        raw = read_yaml(path, "a policy is a mapping of options such as modalities, metrics")
        policy = Policy.model_validate_json(json.dumps(raw))
    except ConfigError as error:
        mistakes = error.mistakes
    except ValidationError as error:
        mistakes = messages(error, kind=Policy)
    except (TypeError, ValueError, RecursionError) as error:
        mistakes = [f"a value of a kind that no option takes: {error}"]
    else:
        state = policy.state or Path(f"{path.stem}.state.json")
        return policy.model_copy(update={"state": path.resolve().parent / state})
    raise PolicyError(str(ConfigError(f"policy {path.name}", mistakes)))
