"""A small vision transformer of torchvision: a second image encoder in addition to CoCa's, for sites with different
encoders.

A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, https://arxiv.org/abs/2010.11929.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import VisionTransformer
from torchvision.transforms import v2

from common.datasets.birds.drawing import SIZE
from common.encoders.vision_transformer import DEVIATION, MEAN, WEIGHTS, VisionTransformerTower
from common.seeding import derive
from deploy.pretrain.corpus import Corpus
from deploy.pretrain.traits import train_traits

WIDTH, LAYERS, HEADS, PATCH = 40, 4, 4, 8


def make_vit() -> VisionTransformer:
    """A model with random weights and 64 thousand parameters. Its classifier is not used."""
    return VisionTransformer(SIZE, PATCH, LAYERS, HEADS, WIDTH, 2 * WIDTH, num_classes=1)


def train_vit(corpus: Corpus, out: Path, steps: int, seed: int, progress: Callable[[int, str], None]) -> None:
    """Train on the corpus, and write the folder that the encoder vision-transformer reads, with weights in float16."""
    torch.manual_seed(derive(seed, "vit"))
    network = make_vit()
    tower = VisionTransformerTower(network, SIZE, SIZE // PATCH)
    tower.network.train()
    normalise = v2.Normalize(MEAN, DEVIATION)

    def vision(pictures: Tensor) -> tuple[Tensor, Tensor]:
        pooled, tokens, _ = tower.of_values(normalise((pictures + 1) / 2))
        return pooled, tokens

    train_traits(vision, network.parameters(), WIDTH, corpus, steps, seed, progress)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in network.state_dict().items()}, out / WEIGHTS)
