"""FedAvg over a model of given size. It writes the time after every round."""

import json
import os
import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the configured number of rounds, with training only."""
    settings, ended = context.run_config, list[float]()
    count = int(settings["tensors"])
    state = {f"layer-{i}": torch.randn(int(settings["values"]) // count) for i in range(count)}
    state["layer-0"][0] = 0  # counts the rounds

    def note(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if float(arrays.to_torch_state_dict()["layer-0"][0]) != server_round:
            raise RuntimeError(f"round {server_round} had no usable reply")
        ended.append(time.time())
        path = Path(str(settings["times"]))
        path.with_suffix(".partial").write_text(json.dumps(ended), encoding="utf-8")
        os.replace(path.with_suffix(".partial"), path)
        return None

    rounds = int(settings["num-server-rounds"])
    strategy = FedAvg(fraction_evaluate=0.0)
    strategy.start(grid=grid, initial_arrays=ArrayRecord(state), num_rounds=rounds, evaluate_fn=note)
