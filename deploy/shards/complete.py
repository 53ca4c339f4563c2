"""`fedmosaic complete` and `fedmosaic probe`: generating values with frozen models, for shards and from class names."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from client.complete import Count, complete, seeds
from client.completion.base import CompleterOptions, Request
from common.config.component import build
from common.config.experiment import Experiment
from common.data.shard import Example, Media, Shard, ShardInfo, ShardWriter
from common.data.sites import PROBE
from common.errors import ConfigError
from common.files import whole_folder
from common.media.values import Raw, encode_image
from common.modality import Modality
from deploy.progress import counted
from deploy.terminal import terminal
from server.strategies.base import StrategyOptions

PROBE_PER_CLASS = 2


def needs_probe(experiment: Experiment) -> bool:
    """Whether the experiment's strategy compares models on a probe set."""
    strategy: StrategyOptions = experiment.component("strategy")
    return strategy.needs_probe


def complete_shards(experiment: Experiment, folders: Sequence[Path], device: str, quiet: bool = False) -> None:
    """Complete shards according to an experiment, with a progress bar and one line per shard and modality.

    Raises ConfigError when the experiment has no completion; ShardError, ModelError.
    """
    if not experiment.completion:
        raise ConfigError("completion", ["the experiment does not complete any modality: add this section"])
    console = terminal(quiet=quiet)
    for folder in folders:
        shard = Shard.open(folder)
        with _bar(console, shard.info.site) as progress:
            counts = complete(shard, experiment.completion, device, progress)
        for modality, count in counts.items():
            if count.made or count.rejected or count.failed:
                console.print(_said(shard.info.site, modality, count), highlight=False)


def _said(site: str, modality: Modality, count: Count) -> str:
    parts = [f"{site}: {count.made} {modality} values made"]
    if count.scores:
        parts.append(f"CLIP score {sum(count.scores) / len(count.scores):.2f}")
    parts += [f"{number} {what}" for number, what in ((count.rejected, "rejected"), (count.failed, "failed")) if number]
    return ", ".join(parts)


@contextmanager
def _bar(console: Console, site: str) -> Iterator["_Shown"]:
    with Progress(*counted(), console=console, disable=not console.is_terminal, transient=True) as progress:
        yield _Shown(progress, site)


class _Shown:
    """The bar of one shard, with one task per modality."""

    def __init__(self, progress: Progress, site: str) -> None:
        self.progress, self.site = progress, site
        self.task = progress.add_task(site, total=None)

    def __call__(self, modality: Modality, done: int, total: int) -> None:
        self.progress.update(self.task, description=f"{self.site}: {modality}", completed=done, total=total)


def make_probe(experiment: Experiment, classes: ShardInfo, out: Path, per_class: int, device: str) -> Path:
    """Write a shard of synthetic examples for the server, from class names alone (section 2.6 of docs/methods.md).

    One completer generates values from class names. The others complete these examples. The folder appears complete or
    not at all.

    Raises ConfigError when no completer works from a name, and for regression, which has no class names. Raises
    ShardError when `out` exists and is not empty. Raises ModelError.
    """
    if classes.task == "regression":
        raise ConfigError("completion", ["regression has no class names: use a shard of examples as --probe-shard"])
    completers: Mapping[Modality, CompleterOptions] = {
        m: build("completer", given) for m, given in experiment.completion.items()
    }
    first = next((m for m in sorted(completers) if completers[m].from_prompt), None)
    if first is None:
        raise ConfigError("completion", ["no modality has a completer that can generate values from class names alone"])
    values: dict[Modality, list[Raw]] = {first: []}
    labels = [label for label in classes.classes for _ in range(per_class)]
    for modality in [first, *sorted(completers.keys() - {first})]:
        sources = None if modality == first else values[completers[modality].source]
        values[modality] = _made(completers[modality], modality, labels, classes.kinds, sources, device)
    examples = [
        Example(
            f"probe-{i}",
            (label,) if classes.task == "multi-label" else label,
            {m: _media(values[m][i]) for m in values},
        )
        for i, label in enumerate(labels)
    ]
    made = {"part": PROBE, "completion": experiment.completion}
    info = ShardInfo(
        site=PROBE,
        task=classes.task,
        classes=classes.classes,
        modalities=sorted(values),
        kinds=classes.kinds,
        made=made,
    )
    with whole_folder(out) as partial:
        ShardWriter(partial, info).write(examples)
    return out


def _made(
    options: CompleterOptions,
    modality: Modality,
    labels: Sequence[str],
    kinds: Mapping[str, str],
    sources: Sequence[Raw] | None,
    device: str,
) -> list[Raw]:
    """One value per label, the first candidate. sources: the source values by label; None: use only the labels."""
    generator = options.load(modality, device)
    requests = []
    for i, label in enumerate(labels):
        source = sources[i] if sources is not None else None
        prompt = options.prompt(label if options.class_name else "", kinds.get(label, ""), source)
        given = source if source is not None else label
        requests.append(Request(given, prompt, seeds(options, modality, f"probe-{i}")[:1]))
    made: list[Raw] = []
    for start in range(0, len(requests), options.batch_size):
        made += [found[0] for found in generator.generate(requests[start : start + options.batch_size])]
    return made


def _media(value: Raw) -> Media:
    if isinstance(value, str):
        return Media.text(value)
    assert isinstance(value, Image.Image)
    return Media(lambda: encode_image(np.asarray(value.convert("RGB"))), ".png")
