"""A client that trains nothing."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Count the round in the first value, and give back the model."""
    state = message.content.array_records["arrays"].to_torch_state_dict()
    with torch.no_grad():
        state["layer-0"][0] += 1
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": ArrayRecord(state), "metrics": metrics}), reply_to=message)
