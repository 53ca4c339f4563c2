"""A client that trains nothing."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return the model with every value changed, as training does, because Flower never sends the same data twice."""
    state = message.content.array_records["arrays"].to_torch_state_dict()
    with torch.no_grad():
        for values in state.values():
            values += 1
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": ArrayRecord(state), "metrics": metrics}), reply_to=message)
