"""FedAvg over an experiment's model. It writes the time after every round."""

import json
import os
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from common.build import build_model
from common.config.reading import from_json

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the configured number of rounds, with training only and all clients in each round."""
    settings, ended, last = context.run_config, list[float](), dict[str, Tensor]()

    def note(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        now = arrays.to_torch_state_dict()
        if server_round and all(now[name].equal(value) for name, value in last.items()):
            raise RuntimeError(f"round {server_round} had no usable reply")
        last.update(now)
        ended.append(time.time())
        path = Path(str(settings["times"]))
        path.with_suffix(".partial").write_text(json.dumps(ended), encoding="utf-8")
        os.replace(path.with_suffix(".partial"), path)
        return None

    state = build_model(from_json(str(settings["experiment"])), 10).state_dict()
    rounds = int(settings["num-server-rounds"])
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=int(settings["clients"]))
    strategy.start(grid=grid, initial_arrays=ArrayRecord(state), num_rounds=rounds, evaluate_fn=note)
