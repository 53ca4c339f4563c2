"""A site, which answers the messages of a server. Every use of its examples starts here, and everything that leaves the
site passes `Site._leave`, which applies the site's policy.

A message of the server, whose body is `client.request.Asked`:

    query    experiment, plugins                      -> an introduction
    train    experiment, plugins, round, modalities;  -> an update
             parameters of the blocks that the site holds

The body of the reply:

    introduction   site, modalities, classes, num_examples, bases, local_dp, findings, unusable
    description    site, modalities, classes, num_examples, local_dp, tables; the answer to a query whose experiment
                   leaves the columns of tables to the sites
    update         site, round, modalities, num_examples, losses, validation, unreadable, device, seconds; parameters of
                   the same blocks
    refusal        site, error; introduce (true: the site wants to introduce itself again)

The server checks replies in `server/clients/replies.py`.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import Message, MessageType, RecordDict

from client.policy import Policy, read_policy
from client.request import Request, packages, read_body, read_request
from client.tables import description
from client.train import train
from common.blocks import Params, learned, select, set_params
from common.build import reused_model
from common.config import plugins
from common.config.experiment import Experiment, Wire
from common.config.tables import without_columns
from common.data.loader import Loaded, load
from common.data.prepared.made import Made
from common.data.shard import Shard
from common.encoders.base import Encoder, FrozenEncoder
from common.errors import DeviceError, FedmosaicError, ShardError, TrainingError
from common.evaluation.evaluate import evaluate
from common.exchange import wire
from common.findings import too_many_unreadable
from common.frozen.pretrained import only
from common.hardware.computing import Hardware
from common.hardware.device import AUTO, CPU, described, held_bytes, release
from common.hardware.faults import device_error
from common.modality import Modality
from common.models.base import MultimodalModel
from common.seeding import derive
from common.tasks.find import task_of
from common.types import Batch

log = logging.getLogger(__name__)

LONGEST = 4000
"""Largest number of characters of a reason."""
KEPT = 4
"""Number of sets of encoders whose prepared examples a site keeps, because a resident worker gets many experiments."""


ONE_THREAD = Hardware()


@dataclass(frozen=True)
class Opened:
    """A site's shard, a model with the initial weights of the experiment, the examples prepared for its encoders, and
    the pre-trained weights that its encoders use (`Encoder.base`)."""

    shard: Shard
    model: MultimodalModel
    loaded: Loaded
    bases: Mapping[Modality, str]


@dataclass(frozen=True)
class Trained:
    """The site's blocks before and after training, and their form in messages."""

    received: Params
    now: Params
    wire: Wire


class ChangedError(FedmosaicError):
    """The site has changed since it introduced itself."""


class Site:
    """A site has a shard folder, a name (by default the shard's name), and possibly a policy file.

    allowed: the plugins of a site without a policy's file, each as name==version; None: the plugins that the
    environment names. hardware: the site's choice of device, threads and reproducibility.

    A site prepares its examples once for each set of encoders and keeps the last few sets.
    """

    def __init__(
        self,
        folder: Path,
        name: str = "",
        policy: Path | None = None,
        allowed: Sequence[str] | None = None,
        hardware: Hardware = ONE_THREAD,
    ) -> None:
        self.folder, self._name, self._policy_file, self._allowed = folder, name, policy, allowed
        self._hardware = hardware
        self._used: torch.device | None = None
        self.device_failed = False
        """Whether the device has failed. The process should end then, because many faults of a GPU remain until its
        process ends."""
        self._policy = Policy()
        self._touched = False
        self._read: tuple[object, Shard] | None = None
        self._prepared: dict[str, Loaded] = {}

    def answer(self, message: Message) -> RecordDict:
        """The reply to a query or a training message. The reply to an error of this project contains its reason, so
        that the server can name the site. Any other exception is raised, unless the policy keeps reasons at the
        site."""
        came = time.monotonic()
        reply = self._answered(message)
        self._free()
        self._policy.hold(came)
        return reply

    def _free(self) -> None:
        """Return the device's memory that is not needed between rounds."""
        if self._used is not None and not self.device_failed:
            release(self._used)
            if held := held_bytes(self._used):
                log.info("between rounds, this process holds %d MB of %s", held >> 20, described(self._used))

    def _answered(self, message: Message) -> RecordDict:
        self._touched = False
        try:
            self._policy = read_policy(self._policy_file, self._allowed)
            asked = read_body(message)
            with only(self._policy.models), plugins.only(self._policy.admit(packages(asked))):
                if message.metadata.message_type == MessageType.QUERY:
                    request = read_request(asked, training=False)
                    tables = without_columns(request.experiment)
                    return self._leave(self.describe(request, tables) if tables else self.introduce(request))
                return self._leave(*self.train_round(read_request(asked, training=True), message))
        except ChangedError as error:
            return refusal(self._called, str(error), introduce=True)
        except Exception as error:
            known = self._of_device(error) or error
            if isinstance(known, FedmosaicError) or not self._policy.metrics:
                log.warning("refused: %s", known)
                said = self._policy.reason(known, self._touched).replace(str(self.folder), self.folder.name)
                return refusal(self._called, said)
            raise

    def _of_device(self, error: Exception) -> DeviceError | None:
        """The error of the site's device that an exception comes from, if any."""
        found = error if isinstance(error, DeviceError) else device_error(error)
        self.device_failed = self.device_failed or found is not None
        return found

    @property
    def _called(self) -> str:
        """The site's name. If the shard cannot be opened, this is the name of its folder."""
        return self._name or (self._read[1].info.site if self._read else self.folder.name)

    def _leave(self, said: Mapping[str, Any], trained: Trained | None = None) -> RecordDict:
        """The part of the reply that the policy allows. Nothing leaves the site anywhere else."""
        figures = self._policy.figures(said)
        if trained is None:
            return wire.record(figures)
        params = self._policy.update(trained.received, trained.now)
        if trained.wire.delta:
            params = {name: value - trained.received[name] for name, value in params.items()}
        return wire.record(figures, wire.pack(params, trained.wire.dtype))

    def introduce(self, request: Request) -> dict[str, Any]:
        """The introduction of the site. It reads all files, so that a shard without usable examples is refused before
        the first round.

        Raises ShardError, PolicyError, ConfigError.
        """
        self._permit(request.experiment)
        self._policy.count_introduction()
        here = self.open(request.experiment)
        request.experiment.check_classes(here.shard.info.classes)
        if why := too_many_unreadable(here.loaded.findings, request.experiment.data.max_unreadable):
            raise ShardError(why)
        self._policy.check_examples(len(self._split(request.experiment, here)[0]))
        return {
            "site": self._name or here.shard.info.site,
            "modalities": here.loaded.examples.modalities,
            "classes": here.shard.info.classes,
            "num_examples": len(here.loaded.ids),
            "bases": here.bases,
            "local_dp": str(self._policy.local_dp or ""),
            "findings": {m: found.model_dump() for m, found in here.loaded.findings.items()},
            "unusable": here.loaded.unusable,
        }

    def describe(self, request: Request, tables: Sequence[Modality]) -> dict[str, Any]:
        """The columns of the site's tables. It reads the metadata of the shard, but no files. tables: the modalities
        whose columns the federation must agree on.

        Raises ShardError, PolicyError.
        """
        self._permit(request.experiment)
        self._policy.check_tables(tables)
        self._policy.count_introduction()
        self._touched = True
        shard, fewest = self._metadata(), self._policy.fewest_cells
        shard.check_task(request.experiment.task.name)
        told = {m: description(shard.columns[m], shard.records, m, fewest) for m in tables if m in shard.columns}
        return {
            "site": self._name or shard.info.site,
            "modalities": sorted(set(shard.info.modalities) & set(request.experiment.modalities)),
            "classes": shard.info.classes,
            "num_examples": len(shard.records),
            "local_dp": "",
            "tables": {m: {name: one.model_dump() for name, one in own.items()} for m, own in told.items()},
        }

    def train_round(self, request: Request, message: Message) -> tuple[dict[str, Any], Trained]:
        """One round: validate the received model and train it. Returns the figures and the blocks that the site holds.

        Raises ShardError, TrainingError, WireError, PolicyError, ConfigError, ChangedError.
        """
        started = time.perf_counter()
        experiment = request.experiment
        self._permit(experiment)
        self._policy.count_update()
        here = self.open(experiment)
        model, held = here.model, here.loaded.examples.modalities
        if held != request.modalities:
            raise ChangedError("the site's modalities have changed")
        training, validation = self._split(experiment, here)
        self._policy.check_examples(len(training))
        received = wire.read_params(message, select(learned(model), held), experiment.wire.dtype)
        wire.check_variances(received)
        set_params(model, received)
        prepared = time.perf_counter()
        size, tallies = experiment.train.batch_size, {}
        if self._policy.validates:
            task = task_of(experiment.task, here.shard.info.classes)
            tallies = evaluate(model, validation.observed(), size, task)
        evaluated = time.perf_counter()
        site = self._name or here.shard.info.site
        log.info("round %d: %s, %s", request.round, described(model.device), experiment.train.precision)
        losses = self._train(model, training, request, site, here.shard.info.classes, received)
        counts = self._policy.counts(tallies, experiment.task.name)
        said = {
            "site": site,
            "round": request.round,
            "modalities": held,
            "num_examples": len(training),
            "losses": losses,
            "validation": {subset: tally.written() for subset, tally in counts.items()},
            "unreadable": here.loaded.unreadable,
            "device": f"{described(model.device)}, {experiment.train.precision}",
            "seconds": {
                "load": prepared - started,
                "evaluate": evaluated - prepared,
                "train": time.perf_counter() - evaluated,
            },
        }
        now = {name: value.cpu() for name, value in select(learned(model), held).items()}
        return said, Trained(received, now, experiment.wire)

    def _train(
        self,
        model: MultimodalModel,
        training: Batch,
        request: Request,
        site: str,
        classes: Sequence[str],
        received: Params,
    ) -> dict[str, float]:
        """Train the model in place and return the losses.

        With local differential privacy, failed training restores the received model. A refusal, which has no noise,
        would reveal the failure.

        Raises TrainingError, ConfigError.
        """
        try:
            return train(model, training, request.experiment, request.round, site, classes)
        except TrainingError as error:
            if self._policy.local_dp is None:
                raise
            log.error("round %d: %s; the update contains only noise", request.round, error)
            set_params(model, received)
            return {}

    def _permit(self, experiment: Experiment) -> None:
        """Raises PolicyError when the policy forbids the experiment. Reads no example."""
        method = experiment.component("method")
        self._policy.check_method(experiment.method["name"], method.counts_labels)
        self._policy.check_updates()

    def _split(self, experiment: Experiment, here: Opened) -> tuple[Batch, Batch]:
        """The training part and the validation part.

        Raises TrainingError when the training part is empty.
        """
        training, validation = here.loaded.split(experiment.data.validation, experiment.seed, self._policy.secret)
        if experiment.data.complete_only:
            training = training.complete(experiment.modalities)
            if not len(training):
                raise TrainingError("no example has every modality, and data.complete_only is true")
        return training, validation

    def shard(self) -> Shard:
        """The shard with the modalities that the policy allows. Reads its metadata, but no files.

        Raises ShardError, PolicyError.
        """
        return self._policy.part_of(Shard.open(self.folder))

    def open(self, experiment: Experiment) -> Opened:
        """Shard, model and prepared examples for an experiment. The model is on the site's device.

        Raises ShardError, PolicyError, DeviceError.
        """
        device = self._device(experiment)
        allowed = self._policy.modalities
        self._touched = True
        shard = self._metadata()
        shard.check_task(experiment.task.name)
        model = reused_model(experiment, len(shard.info.classes), device)
        encoders = {
            m: self._own(model.encoder(m), experiment.seed, m, shard)
            for m in model.modalities
            if allowed is None or m in allowed
        }
        completion = {m: how for m, how in experiment.completion.items() if m in encoders}
        made = {m: Made(experiment.model.encoders[m], number) for m, (number, _) in encoders.items()}
        prepared = str([sorted(made.items()), sorted(completion.items())])
        loaded = self._prepared.get(prepared)
        if loaded is None:
            loaded = load(shard, {m: encoder for m, (_, encoder) in encoders.items()}, completion, made)
            for _, encoder in encoders.values():
                if isinstance(encoder, FrozenEncoder):
                    encoder.rest()
            self._prepared[prepared] = loaded
            if len(self._prepared) > KEPT:
                del self._prepared[next(iter(self._prepared))]
        bases = {m: encoders[m][1].base for m in loaded.examples.modalities}
        return Opened(shard, model, loaded, {m: base for m, base in bases.items() if base})

    def _device(self, experiment: Experiment) -> torch.device:
        """The device of the site, after this process is prepared for the computation. A GPU that `auto` has taken stays
        the device, because the memory that this process holds there would make another GPU look free.

        Raises PolicyError when the policy forbids the device. Raises DeviceError.
        """
        hardware = self._policy.hardware(self._hardware)
        if hardware.device == AUTO and self._used is not None and self._used.type != CPU:
            hardware = replace(hardware, device=str(self._used))
        self._used = hardware.use(experiment.train.deterministic, experiment.train.tf32)
        return self._used

    def _metadata(self) -> Shard:
        """The shard as the current policy allows it. Reads it again when the policy allows other modalities than
        before."""
        if self._read is None or self._read[0] != self._policy.modalities:
            self._read = self._policy.modalities, self.shard()
            self._prepared.clear()
        return self._read[1]

    def _own(self, encoder: Encoder, seed: int, modality: Modality, shard: Shard) -> tuple[int, Encoder]:
        """The encoder that this site uses, and its number. If there are several, the seed and the name of the site
        choose one."""
        ways = encoder.alternatives()
        number = derive(seed, "encoder", modality, self._name or shard.info.site) % len(ways)
        return number, ways[number]


def refusal(site: str, reason: str, introduce: bool = False) -> RecordDict:
    """The reply of a site that refuses a message. introduce: whether the site wants to introduce itself again."""
    short = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]} ..."
    return wire.record({"site": site, "error": short} | ({"introduce": True} if introduce else {}))
