"""The suite that `fedmosaic init --shards` writes: common methods, compared on the user's own shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from common.config.component import find
from common.config.task import SingleLabel

METHODS = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "fedavg-heads": "FedAvg with a loss per modality",
    "fedcmi": "FedCMI",
    "fedcmi-gated": "FedCMI gated",
}
"""The methods that need no pre-trained models, with the titles of their rows. A suite has those that are defined for
its task."""
VALIDATION = 0.2
FACTORS = (0.3, 1, 3)
"""The candidate learning rates, as multiples of the experiment's rate."""
TEMPLATE = """\
# `fedmosaic init --shards` made this suite for the shards in {shards}.
#   fedmosaic bench {file}
# Every method is tuned on the sites' validation examples. Then every method is trained with every seed, and tested on
# the shard `test`. Finished runs are not repeated.
name: {name}
shards: {shards}
references: [fedavg]       # the tables have the differences to these rows
seeds: [1, 2, 3]           # more seeds give narrower confidence intervals
tuning: {{option: train.lr, values: {rates}, seeds: [11]}}
experiment:
{task}  data: {data}  # share of each site's examples that tunes and does not train; drawn again for each seed
  model:
    encoders:
{encoders}
  strategy: {{name: fedcmi}} # for all methods: the block of a modality is the mean over the sites that hold it
  train: {train}
  federation: {federation}
settings:
  own: {{title: "{title}"}}
methods:                   # remove lines, or add rows: set takes any option of the experiment
{methods}
"""


def starting_suite(experiment: Mapping[str, Any], shards: Path, file: Path) -> str:
    """The suite as YAML with comments. experiment: an experiment for the shards, whose encoders and training it uses.
    file: the path of the suite, for its comment."""
    train, encoders = experiment["train"], experiment["model"]["encoders"]
    data = {key: value for key, value in experiment["data"].items() if key != "clients"}
    rows = {name: {"title": METHODS[name], "set": {"method": name}} for name in methods_for(experiment)}
    return TEMPLATE.format(
        shards=_flow(str(shards)),
        file=file,
        name=experiment["name"],
        rates=_flow([float(f"{factor * train['lr']:.1g}") for factor in FACTORS]),
        task="".join(f"  {key}: {_flow(experiment[key])}\n" for key in ("task", "metrics") if key in experiment),
        data=_flow({"validation": VALIDATION, **data}),
        encoders="\n".join(f"      {m}: {_flow(options)}" for m, options in encoders.items()),
        train=_flow({key: value for key, value in train.items() if key != "lr"}),
        federation=_flow(experiment["federation"]),
        title=f"{experiment['data']['clients']} sites, {', '.join(encoders)}",
        methods="\n".join(f"  {name}: {_flow(row)}" for name, row in rows.items()),
    )


def methods_for(experiment: Mapping[str, Any]) -> list[str]:
    """The names of the methods that are defined for the experiment's task."""
    task = experiment.get("task", SingleLabel().name)
    name = task["name"] if isinstance(task, Mapping) else task
    kinds: Mapping[str, type[Any]] = {method: find("method", method) for method in METHODS}
    return [method for method, kind in kinds.items() if name in kind.tasks]


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("\n...\n").strip()
