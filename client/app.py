"""The ClientApp: it receives Flower's messages and returns replies.

Flower starts a new process for every message. To start quickly, this process imports nothing heavy and passes the
message to the node's resident worker (`client/resident/worker.py`). Without a worker, this process answers the message.
For an unexpected exception, the server gets Flower's error reply."""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.words import in_words
from common.data.sites import site_folders
from common.files import keep_private
from common.words.node_log import say

log = logging.getLogger(__name__)
app = ClientApp()
HARDWARE = ("device", "threads", "deterministic")
"""The settings of a node's configuration that choose the site's hardware."""


@app.query()
def query(message: Message, context: Context) -> Message:
    """Introduce the site: its name, modalities, classes and number of examples."""
    return _reply(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluate the received model on the validation part, train it, and return the blocks that the site holds."""
    return _reply(message, context)


def _reply(message: Message, context: Context) -> Message:
    from common.errors import FedmosaicError

    keep_private()
    name = str(context.node_config.get("site", ""))
    try:
        shard, policy = shard_folder(context), policy_file(context)
    except FedmosaicError as error:
        from client.site import refusal

        reason = f"{type(error).__name__}: {error}"
        return Message(refusal(name or "a site without a name", reason), reply_to=message)
    # A process that has loaded torch, as in a simulation, gains nothing from a second one.
    resident = "shard" in context.node_config and "torch" not in sys.modules
    started = time.perf_counter()
    reply = _answer(message, shard, name, policy, hardware(context), resident)
    if "shard" in context.node_config:  # a node, not a client of a simulation
        say(in_words(message.content, reply, time.perf_counter() - started))
    return Message(content=reply, reply_to=message)


def _answer(
    message: Message, shard: Path, name: str, policy: Path | None, hardware: Mapping[str, str], resident: bool
) -> RecordDict:
    """Raises WorkerError when the resident worker fails. Without a worker, raises the exceptions of the site."""
    if resident:
        from client.resident.connection import Home, NoWorkerError, ask

        try:
            return ask(Home(shard, name, policy, hardware), message.metadata.message_type, message.content)
        except NoWorkerError as error:
            log.warning("answering without a resident worker: %s", error)
    from client.site import Site
    from common.hardware.computing import Hardware

    return Site(shard, name, policy, hardware=Hardware.of_node(hardware)).answer(message)


def policy_file(context: Context) -> Path | None:
    """The site's policy file, from the node's setting `policy`. None: the site has the default policy."""
    given = context.node_config.get("policy")
    return None if given is None else Path(str(given))


def hardware(context: Context) -> dict[str, str]:
    """The site's hardware, as settings of `common.hardware.computing.Hardware`. A node has them in its own
    configuration. A client of a simulation has them in the run's configuration."""
    if "shard" in context.node_config:
        return {key: str(context.node_config[key]) for key in HARDWARE if key in context.node_config}
    told = context.run_config
    return {"device": str(told.get("device", "cpu")), "threads": str(told.get("threads", 1)), "deterministic": "yes"}


def shard_folder(context: Context) -> Path:
    """The shard of the node: its setting `shard` or, in a simulation, the shard with the number `partition-id` in the
    folder of the run's setting `shards`.

    Raises PolicyError when a node with a policy names no shard, because the run's setting comes from the server.
    Raises WireError when there is neither setting.
    """
    from common.errors import PolicyError, WireError

    if "shard" in context.node_config:
        return Path(str(context.node_config["shard"]))
    if "policy" in context.node_config:
        raise PolicyError("a node with a policy must name its own shard in its node configuration")
    if "partition-id" not in context.node_config:
        raise WireError("the node names no shard in its node configuration: start it with shard='/path/to/shard'")
    return site_folders(Path(str(context.run_config["shards"])))[int(context.node_config["partition-id"])]
