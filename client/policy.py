"""The policy of a site: a file at the site that decides what leaves it. Nothing that a server sends can widen it.

The node's own configuration names the file (`policy`). docs/explanation/security.md explains the options,
deploy/hosts/site.yaml is an example, and `client/site.py` enforces them.
"""

import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from client.site_state import SiteState
from common.blocks import Params, valid
from common.config.component import Options
from common.config.experiment import ModalityName
from common.config.plugins import PINNED, VARIABLE, Plugin, normalised, pins, plugin
from common.config.reading import messages
from common.config.task import TaskName
from common.config.yaml_file import read_yaml
from common.data.shard import Shard
from common.errors import ConfigError, DeviceError, FedmosaicError, PolicyError, ShardError, WireError
from common.hardware.computing import Hardware
from common.hardware.device import AUTO, CPU
from common.tasks.observed import Tally

log = logging.getLogger(__name__)

ALWAYS = ("site", "round", "modalities", "classes", "num_examples", "bases", "local_dp")
"""Figures that leave with every introduction and update, because a federation needs them."""
METRICS = ("losses", "unreadable", "findings", "unusable", "device", "seconds")
LABEL_COUNTS = ("validation",)
"""Figures that contain counts by class."""
TABLES = ("tables",)
"""Figures that contain statistics of tables."""
FEWEST_CELLS = 5
"""The smallest number of cells whose mean and variance may leave. Those of one or two numbers are the numbers."""
HARMLESS = (PolicyError, WireError, ConfigError, DeviceError)
"""Errors that concern only the policy or the server's message, as long as no example has been read."""
LINE = re.compile(r"\s*- line \d+:")
"""The first words of the message about a line of a shard's metadata."""
KEPT = "the reason is in the site's log; the site's policy keeps it there (metrics)"
"""The text of all refusals that may depend on an example. Different texts would reveal something about the example."""


class LocalDP(Options):
    """Local differential privacy: noise on each update before it is sent to the server."""

    clip: float = Field(gt=0)
    """L2 norm to which the site clips its update, the difference to the received parameters."""
    noise: float = Field(gt=0)
    """Standard deviation of the Gaussian noise on every value of the clipped update, in units of `clip`."""

    def __str__(self) -> str:
        """Short, for logs."""
        return f"local_dp: clip {self.clip:g}, noise {self.noise:g}"


class Policy(Options):
    """The policy of a site. A site without a policy file has the default of every option."""

    modalities: list[ModalityName] | None = Field(None, min_length=1)
    """Modalities that may take part. The site treats any other modality as absent from its shard. None: all."""
    metrics: bool = True
    """Whether losses, timings, counts of unreadable files, and the reasons of errors may leave the site."""
    label_counts: bool = True
    """Whether counts by class may leave the site: validation counts, and updates of methods that contain such counts.
    Validation figures leave only if `metrics` is true, too."""
    table_statistics: bool = True
    """Whether the columns of tables (names, types, units, categories, ranges) and the count, mean and variance of each
    number may leave the site, and how many cells the model cannot use. They leave only if `metrics` is true and
    `local_dp` is None. If not, the site takes part in runs whose experiment contains the columns."""
    min_examples: int = Field(1, ge=1)
    """Smallest number of training examples of an update that may leave the site, and of cells whose count, mean and
    variance may leave. For cells, at least 5."""
    min_cell: int = Field(1, ge=1)
    """Smallest count of validation examples that may leave, except 0. The counts of a modality subset are in parts:
    right and wrong predictions, the confusion matrix, histograms of scores, calibration. A part with a smaller count
    stays at the site as a whole, and the server computes its figures from the other sites. 1: all parts leave. For
    a regression, at least 5."""
    max_updates: int | None = Field(None, ge=0)
    """Largest number of training messages that the site answers, over all runs. None: no limit."""
    max_introductions: int | None = Field(200, ge=0)
    """Largest number of introductions that the site answers per day (UTC), over all runs. None: no limit."""
    state: Path | None = None
    """The file in which training messages and introductions are counted, relative to the policy's folder. None:
    <policy>.state.json. It also contains the secret key of the site's split into training and validation examples."""
    models: list[str] | None = None
    """Names of the frozen models that the site may use. None: all models in the site's models folder, and those of the
    release."""
    plugins: list[Annotated[str, Field(pattern=rf"^{PINNED}$")]] = Field(default_factory=list)
    """Packages of others whose methods, models, encoders and completers may run here, each as name==version. The
    installed content must be the same as at the server."""
    gpu: bool = True
    """Whether the site may compute on a GPU. If not, it computes on the processor, and refuses when its node is started
    with another device."""
    reply_seconds: float | None = Field(None, gt=0, le=86_400)
    """The site sends a reply at a multiple of this many seconds after the message came, so that the time of the reply
    reveals less about the examples. Every message takes up to this many seconds longer. None: at once."""
    local_dp: LocalDP | None = None
    """Noise on each update. None: updates leave without noise."""

    def part_of(self, shard: Shard) -> Shard:
        """The shard with only the modalities that may take part.

        Raises PolicyError when none remains.
        """
        if self.modalities is None:
            return shard
        if not set(self.modalities) & set(shard.info.modalities):
            raise PolicyError("the shard has none of the modalities that this site's policy allows")
        return shard.only(self.modalities)

    def in_words(self) -> list[str]:
        """The policy as sentences, for the log of the node and for `fedmosaic doctor`."""
        taking = ", ".join(self.modalities) if self.modalities is not None else "all of the shard"
        counts = "" if self.label_counts else "; counts by class may not"
        said = [
            f"modalities that may take part: {taking}",
            f"losses, timings and reasons of errors may leave{counts}" if self.metrics else "no figures may leave",
        ]
        if not self.describes_tables:
            said.append("statistics of tables may not leave")
        if self.min_examples > 1:
            said.append(f"updates of fewer than {self.min_examples} training examples may not leave")
        if self.min_cell > 1 and self.validates:
            said.append(f"parts of validation counts with a count of 1 to {self.min_cell - 1} examples may not leave")
        if self.max_updates is not None:
            said.append(f"at most {self.max_updates} updates may leave, over all runs")
        if self.models is not None:
            said.append(f"frozen models that may be used: {', '.join(self.models) or 'none'}")
        if self.plugins:
            said.append(f"plugins that may run: {', '.join(self.plugins)}")
        if not self.gpu:
            said.append("no GPU may be used")
        if self.reply_seconds is not None:
            said.append(f"replies leave at multiples of {self.reply_seconds:g} s")
        if self.local_dp is None:
            return [*said, "updates leave without noise"]
        return [*said, f"updates get noise before they leave ({self.local_dp}), which costs accuracy"]

    def admit(self, asked: Sequence[Plugin]) -> Sequence[Plugin]:
        """The plugins that the server's run uses, all of which may run here. Loads none of them.

        Raises PolicyError with each plugin that the policy does not name, that is not installed, or that differs.
        """
        named = {normalised(pinned) for pinned in self.plugins}
        if mistakes := [why for one in asked if (why := _unfit(one, named))]:
            raise PolicyError("; ".join(mistakes))
        return asked

    def hardware(self, chosen: Hardware) -> Hardware:
        """The site's choice of hardware as far as it is allowed. `auto` becomes the processor if no GPU may be used.

        Raises PolicyError when the site has chosen another device than its policy allows.
        """
        if self.gpu or chosen.device == CPU:
            return chosen
        if chosen.device != AUTO:
            raise PolicyError(f"this site's policy forbids GPUs (gpu), but its node has --device {chosen.device}")
        return replace(chosen, device=CPU)

    def check_examples(self, count: int) -> None:
        """Raises PolicyError when an update of `count` training examples may not leave."""
        if count < self.min_examples:
            raise PolicyError(
                f"the site has fewer training examples than its policy requires (min_examples: {self.min_examples})"
            )

    def check_method(self, name: str, counts_labels: bool) -> None:
        """Raises PolicyError when a method sends counts by class that may not leave."""
        if counts_labels and not self.label_counts:
            raise PolicyError(f"this site's policy forbids counts by class (label_counts), which method {name} sends")

    @property
    def describes_tables(self) -> bool:
        """Whether statistics of tables may leave."""
        return self.table_statistics and self.metrics and self.local_dp is None

    @property
    def fewest_cells(self) -> int:
        """The smallest number of cells whose mean and variance may leave."""
        return max(self.min_examples, FEWEST_CELLS)

    def check_tables(self, tables: Sequence[str]) -> None:
        """Raises PolicyError when the statistics of the tables may not leave. tables: the modalities."""
        if not self.describes_tables:
            options = ", ".join(f"model.encoders.{modality}.columns" for modality in tables)
            raise PolicyError(
                "this site's policy keeps statistics of tables at the site (table_statistics, metrics, local_dp): give "
                f"the columns with mean and std in the experiment, {options}"
            )

    def check_updates(self) -> None:
        """Raises PolicyError when no more training messages may be answered."""
        if self.max_updates is not None:
            self._state().check_updates(self.max_updates)

    def count_update(self) -> None:
        """Count a training message before the site reads an example.

        Raises PolicyError when the limit is reached.
        """
        if self.state is not None:
            self._state().count_update(self.max_updates)

    def count_introduction(self) -> None:
        """Count an introduction before the site reads an example.

        Raises PolicyError when today's limit is reached.
        """
        if self.state is not None:
            self._state().count_introduction(self.max_introductions)

    @property
    def secret(self) -> str:
        """The secret key of the site's validation split. It is "" for a site without a policy file, so that the seed
        alone repeats a run.

        Raises PolicyError when the secret cannot be saved.
        """
        return self._state().secret() if self.state is not None else ""

    @property
    def validates(self) -> bool:
        """Whether validation figures may leave. If not, the site does not validate, because a failing validation would
        reveal something about an example."""
        return self.metrics and self.label_counts

    def counts(self, tallies: Mapping[str, Tally], task: TaskName) -> dict[str, Tally]:
        """The parts of validation counts that may leave, by subset of modalities. The sums of a regression over one or
        two examples are the values themselves, so they need as many examples as the statistics of tables."""
        fewest = max(self.min_cell, FEWEST_CELLS) if task == "regression" else self.min_cell
        kept = {subset: tally.without_small_cells(fewest) for subset, tally in tallies.items()}
        return {subset: tally for subset, tally in kept.items() if tally.parts}

    def hold(self, since: float) -> None:
        """Wait until a reply may leave. since: time.monotonic() when the message came."""
        if self.reply_seconds is not None:
            taken = time.monotonic() - since
            time.sleep(math.ceil(taken / self.reply_seconds) * self.reply_seconds - taken)

    def figures(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """The part of the site's figures that may leave."""
        allowed = {*ALWAYS}
        if self.metrics:
            allowed |= {*METRICS}
            if self.label_counts:
                allowed |= {*LABEL_COUNTS}
        if self.describes_tables:
            allowed |= {*TABLES}
        kept = {key: value for key, value in said.items() if key in allowed}
        if "findings" in kept:
            kept["findings"] = {m: found | {"notes": self._notes(found)} for m, found in kept["findings"].items()}
        return kept

    def _notes(self, found: Mapping[str, Any]) -> dict[str, int]:
        """The encoder's findings about cells of tables. The server chooses ranges and categories, so they are
        statistics too."""
        fewest = self.fewest_cells if self.describes_tables else math.inf
        return {note: count for note, count in found.get("notes", {}).items() if count >= fewest}

    def update(self, received: Params, trained: Params) -> Params:
        """The trained parameters as they may leave: unchanged, or with local differential privacy."""
        if self.local_dp is None:
            return trained
        from common.exchange.privacy import clip, new_secret, noise  # scipy loads slowly

        difference = {name: trained[name].double() - received[name].double() for name in trained}
        cut = clip(difference, self.local_dp.clip)
        noisy = noise(cut, self.local_dp.clip * self.local_dp.noise, new_secret(), "update")
        blurred = {name: (received[name].double() + noisy[name]).to(trained[name].dtype) for name in trained}
        return {name: valid(name, value) for name, value in blurred.items()}

    def reason(self, error: Exception, touched: bool) -> str:
        """The reason of an error as far as it may leave. The node's log contains the complete reason. touched: whether
        the site may have read an example for this message."""
        if self.metrics or (isinstance(error, HARMLESS) and not touched):
            return f"{type(error).__name__}: {without_lines(str(error)) if isinstance(error, ShardError) else error}"
        log.error("kept from the server: %s", error, exc_info=not isinstance(error, FedmosaicError))
        return f"{PolicyError.__name__}: {KEPT}"

    def _state(self) -> SiteState:
        assert self.state is not None
        return SiteState(self.state)


def without_lines(said: str) -> str:
    """The mistakes of a shard without the content of its lines: no labels, ids or names of files."""
    lines = said.splitlines()
    kept = [line for line in lines if not LINE.match(line)]
    hidden = len(lines) - len(kept)
    return "\n".join([*kept, *([f"  - mistakes in {hidden} lines; see the site's log"] if hidden else [])])


def _unfit(asked: Plugin, named: Set[str]) -> str:
    """The reason why a plugin may not run here; "" if it may."""
    if str(asked) not in named:
        return f"this site's policy does not name the package {asked} (plugins)"
    try:
        installed = plugin(str(asked))
    except ConfigError as error:
        return "; ".join(error.mistakes)
    if installed is None:
        others = [pin for pin in pins() if pin.startswith(f"{asked.name}==")]
        return f"the package {asked} is not installed at this site{f', but {others[0]} is' if others else ''}"
    if installed.digest != asked.digest:
        return f"the package {asked} has another content at this site than at the server"
    return ""


def read_policy(path: Path | None, allowed: Sequence[str] | None = None) -> Policy:
    """Read a policy file. Without a file, the default policy.

    allowed: the plugins of the default policy, each as name==version; None: the plugins that the environment names.

    Raises PolicyError with every mistake of the file.
    """
    if path is None:
        given = os.environ.get(VARIABLE, "").split() if allowed is None else allowed
        try:
            return Policy(plugins=list(given))
        except ValidationError as error:
            raise PolicyError(str(ConfigError(VARIABLE, messages(error, Policy)))) from None
    try:
        raw = read_yaml(path, "a policy is a mapping of options such as modalities, metrics")
        policy = Policy.model_validate_json(json.dumps(raw))
    except ConfigError as error:
        mistakes = error.mistakes
    except ValidationError as error:
        mistakes = messages(error, Policy)
    except (TypeError, ValueError, RecursionError) as error:
        mistakes = [f"no option accepts a value of this kind: {error}"]
    else:
        state = policy.state or Path(f"{path.stem}.state.json")
        return policy.model_copy(update={"state": path.resolve().parent / state})
    raise PolicyError(str(ConfigError(f"policy {path.name}", mistakes)))
