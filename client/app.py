"""The ClientApp: Flower messages in and out.

Flower starts a new process for every message, so nothing heavy is imported before a message asks for it. A mistake that
is this project's own (FedmosaicError) is answered with its reason, so that the server can name the site; anything else
is raised and reaches the server as Flower's error reply.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common.errors import FedmosaicError

if TYPE_CHECKING:
    from flwr.app import RecordDict

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Introduce the site: name, modalities, classes, number of examples."""
    from client import site

    return _reply(message, context, site.introduce)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluate the received model on the validation part, train it, and return the blocks the site holds."""
    from client import site

    return _reply(message, context, site.train_round)


def _reply(message: Message, context: Context, answer: Any) -> Message:
    from common import wire

    folder, name = shard_folder(context), str(context.node_config.get("site", ""))
    try:
        content: RecordDict = answer(message, folder, name)
    except FedmosaicError as error:
        name = name or folder.name
        content = wire.record({"site": name, "error": f"{type(error).__name__}: {error}"})
    return Message(content=content, reply_to=message)


def shard_folder(context: Context) -> Path:
    """The node's shard: its own setting `shard`, or client-<partition-id> of the run's `shards` (simulation).

    The node's setting `site` names the site; without it the shard's own name holds.
    """
    if "shard" in context.node_config:
        return Path(str(context.node_config["shard"]))
    return Path(str(context.run_config["shards"])) / f"client-{context.node_config['partition-id']}"
