"""`fedmosaic export`: write the model of a run, with a model card, into a folder that can be shared."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from common.errors import ConfigError
from deploy.commands.shared.which_model import add_model

if TYPE_CHECKING:
    from common.config.experiment import Experiment
    from common.trained.saved_model import Best, Description, Which
    from server.report.run import Run

OPTIMISTIC = " These figures are optimistic, because the same examples chose the model."


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic export`."""
    parser = commands.add_parser(
        "export",
        help="write the model of a run with a model card, for use without server and clients",
        description="Write model.safetensors, config.json and README.md (a model card). fedmosaic predict and "
        "load_model accept the folder in place of a run folder.",
        epilog="example: fedmosaic export runs/demo --out models/demo",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    add_model(parser)
    parser.add_argument(
        "--merge",
        action="store_true",
        help="add low-rank adapters (LoRA) to the weights of their layers; the folder then contains all weights of "
        "these encoders, but predictions still need the folder of the pre-trained network, which has its settings",
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    if options.out.exists():
        raise ConfigError("--out", [f"{options.out} exists already; name a new folder"])
    description = export(options.run, options.out, options.merge, options.model)
    print(f"model and model card in {options.out}")
    if description.best:
        from common.words.best_model import best_in_words

        print(f"it is {best_in_words(description.best.model_dump())}")


def export(run_folder: Path, out: Path, merged: bool = False, which: "Which | None" = None) -> "Description":
    """Write the model of a run into a new folder. Returns its description. merged: whether adapters are added to the
    weights of their layers. which: the best or the last model; None: the best one if the run keeps it.

    Raises ModelError when the run has no model, or no adapters to merge. Raises ConfigError when the run cannot be read
    or the folder not be written.
    """
    from common.config.reading import read
    from common.files import write_whole
    from common.trained.merging import merge
    from common.trained.saved_model import pretrained_encoders, read_model, write_model
    from server.report.run import read_run

    model, description = read_model(run_folder, which)
    if merged:
        description = merge(model, description)
    description = description.model_copy(update={"frozen": pretrained_encoders(model)})
    card = model_card(read_run(run_folder), read(run_folder / "experiment.yaml"), description)
    try:
        out.mkdir(parents=True)
        write_whole(out / "README.md", card.encode())
        write_model(out, model, description)
    except OSError as error:
        raise ConfigError("--out", [f"{out} cannot be written: {error.strerror}"]) from None
    return description


def model_card(run: "Run", experiment: "Experiment", description: "Description") -> str:
    """The text of README.md: the model's purpose, origin, accuracy and use, in the layout of the model cards of the
    Hugging Face hub."""
    from common.split.make import recipe
    from common.words.best_model import best_in_words
    from common.words.printable import printable

    best = description.best
    status = run.summary.get("status", "unfinished")
    note = "" if status == "completed" else f"**The run is {status}: this is the model after its last full round.**\n"
    return CARD.substitute(
        name=experiment.name,
        note=note,
        modalities=", ".join(experiment.modalities),
        classes=", ".join(map(printable, description.classes)),
        task=experiment.task.name,
        tag="regression" if experiment.task.name == "regression" else "classification",
        kinds={"single-label": "Classes", "multi-label": "Labels"}.get(experiment.task.name, "Targets"),
        method=_said(experiment.method),
        strategy=_said(experiment.strategy or {}),
        rounds=max((int(line["round"]) for line in run.rounds), default=0),
        sites=len(run.clients),
        seed=experiment.seed,
        data=_said(recipe(experiment)["set"]) if experiment.data.set else "the sites' own shards",
        licence=_licence(experiment),
        encoders="\n".join(f"- {m}: {_said(encoder)}" for m, encoder in sorted(description.model.encoders.items())),
        architecture=_said(description.model.architecture or {}),
        frozen=_frozen(description),
        which=best_in_words(best.model_dump()) if best else "the model after the last round",
        measured=_measured(run, best),
        optimistic=OPTIMISTIC if best and best.on == run.measured_on else "",
        figures="\n".join(_figures(run, best)),
        example=", ".join(f'"{m}": ...' for m in experiment.modalities),
    )


def _said(reference: Mapping[str, Any]) -> str:
    """The Markdown of a component: its name and its options as JSON."""
    options = {key: value for key, value in reference.items() if key != "name"}
    return f"`{reference['name']}`" + (f" `{json.dumps(options)}`" if options else "")


def _licence(experiment: "Experiment") -> str:
    """The licence of the data."""
    return experiment.component("data set").licence if experiment.data.set else "known to the sites"


def _frozen(description: "Description") -> str:
    if not description.frozen:
        return ""
    listed = "\n".join(f"- {m}: {about}" for m, about in sorted(description.frozen.items()))
    return (
        "\nThis folder does not contain all pre-trained weights. They are loaded by name from the places that "
        "`docs/how-to/frozen-models.md` lists, and refused when they differ from the weights in training:"
        f"\n\n{listed}\n"
    )


def _measured(run: "Run", best: "Best | None") -> str:
    """The examples behind the figures of the model."""
    where = "the server's test examples" if run.measured_on == "test" else "the sites' validation examples"
    if best:
        return where
    return where if run.measured_on == "test" else f"{where}, with the model that the sites received in the last round"


def _figures(run: "Run", best: "Best | None") -> Iterator[str]:
    from common.words.figures import LEADING, title, value

    measured = dict(run.points).get(best.round, {}) if best else run.final
    metrics = LEADING[run.task]
    yield f"| modalities | {' | '.join(map(title, metrics))} | examples |"
    yield f"|---|{'---|' * (len(metrics) + 1)}"
    for name in run.subsets:
        if (figures := measured.get(name)) is None:
            continue
        yield f"| {name} | {' | '.join(value(key, figures.get(key)) for key in metrics)} | {figures['examples']} |"


CARD = Template("""---
library_name: fedmosaic
pipeline_tag: other
tags: [federated-learning, multimodal, $tag]
---

# $name

This model ($task) predicts from any subset of these modalities: $modalities. It was trained with fedmosaic by federated
learning: the data stayed at the sites, and the server averaged the parameters.
$note
$kinds: $classes.

| | |
|---|---|
| method | $method |
| strategy | $strategy |
| model | $which |
| rounds | $rounds |
| sites | $sites |
| seed | $seed |
| data set | $data |
| licence of the data | $licence |

## Figures

Measured with only these modalities as input, on $measured.$optimistic

$figures

## Use

```python
import fedmosaic

model = fedmosaic.load_model("this folder")
model.predict([{$example}])[0].label       # any subset of the modalities: files, texts, pictures, arrays
```

or `fedmosaic predict DIR --input FILE...`. fedmosaic unpickles no file and runs no code of this folder.

## Parts

Architecture: $architecture. Encoders, each with its own preprocessing:

$encoders
$frozen
The parameters of a model can reveal facts about its training data. Share the model only as far as the sites agree.
""")
