"""The ClientApp: Flower messages in and out.

Flower starts a new process for every message, so nothing heavy is imported before a message asks for it. An error that
is not this project's own reaches the server as Flower's error reply.
"""

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Introduce the site: name, modalities, classes, number of examples."""
    return _reply(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluate the received model on the validation part, train it, and return the blocks the site holds."""
    return _reply(message, context)


def _reply(message: Message, context: Context) -> Message:
    from client.site import Site

    site = Site(shard_folder(context), str(context.node_config.get("site", "")))
    return Message(content=site.answer(message), reply_to=message)


def shard_folder(context: Context) -> Path:
    """The node's shard: its own setting `shard`, or client-<partition-id> of the run's `shards` (simulation).

    The node's setting `site` names the site; without it the shard's own name holds.
    """
    if "shard" in context.node_config:
        return Path(str(context.node_config["shard"]))
    return Path(str(context.run_config["shards"])) / f"client-{context.node_config['partition-id']}"
