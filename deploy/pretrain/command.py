"""`fedmosaic pretrain`: train the weights that come with the project again from scratch.

fedmosaic pretrain birds-coca --out DIR        about an hour on one core
fedmosaic pretrain birds-diffusion --out DIR   about an hour on one core
fedmosaic pretrain birds-vit --out DIR         about ten minutes on one core
"""

from pathlib import Path

import torch
from rich.progress import Progress

from common.errors import ConfigError
from deploy.pretrain.coca import train_coca
from deploy.pretrain.corpus import make_corpus
from deploy.pretrain.diffusion import train_autoencoder, train_diffusion
from deploy.pretrain.vit import train_vit
from deploy.terminal import terminal

CORPUS, FEWEST = 30_000, 160
"""Number of birds in the corpus, and its smallest number with little effort: one batch."""
STEPS = {"birds-coca": (1800, 1500), "birds-diffusion": (2000, 3000), "birds-vit": (2500,)}
"""Training steps: vision tower and whole model; autoencoder and diffusion; vision transformer."""
SAY_EVERY = 100


def pretrain(model: str, out: Path, seed: int, effort: float) -> None:
    """Train a model of `STEPS` on the public corpus, and write its folder. effort: share of the steps.

    Raises ConfigError when the folder exists.
    """
    if out.exists():
        raise ConfigError("--out", [f"{out} exists already; name a new folder"])
    torch.set_num_threads(1)  # the same numbers on every machine of a kind
    console = terminal()
    birds = max(FEWEST, round(CORPUS * effort))
    console.print(f"drawing {birds} birds")
    corpus = make_corpus(birds, seed)
    steps = [max(2, round(effort * usual)) for usual in STEPS[model]]
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(model, total=sum(steps))

        def said(step: int, text: str) -> None:
            progress.update(task, advance=1, description=text)
            if step % SAY_EVERY == 0:
                console.print(f"step {step}: {text}", highlight=False)

        if model == "birds-coca":
            train_coca(corpus, out, steps, seed, said)
        elif model == "birds-vit":
            train_vit(corpus, out, steps[0], seed, said)
        else:
            train_diffusion(corpus, train_autoencoder(corpus, steps[0], seed, said), out, steps[1], seed, said)
