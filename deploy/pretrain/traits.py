"""Training of a vision tower on the kind and the traits of drawn birds, which are known in the public corpus."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.datasets.birds.species import KINDS, TRAITS, Bird
from common.seeding import torch_rng
from deploy.pretrain.corpus import Corpus, pixels

BATCH, LR, WARM, DECAY = 160, 1e-3, 0.08, 0.05
LABELS = {"kind": KINDS, **TRAITS}
Vision = Callable[[Tensor], tuple[Tensor, Tensor]]


def train_traits(
    vision: Vision,
    weights: Iterable[nn.Parameter],
    width: int,
    corpus: Corpus,
    steps: int,
    seed: int,
    progress: Callable[[int, str], None],
) -> None:
    """Train a tower's weights with linear classifiers on the pooled features and on the mean of the tokens. The
    classifiers are discarded.

    vision: pixels [B, 3, H, W] from -1 to 1 -> pooled features [B, width] and tokens [B, T, width].
    """
    labels = trait_labels(corpus.birds)
    heads = nn.ModuleList([nn.Linear(width, len(values)) for values in LABELS.values() for _ in range(2)])
    learned = [*weights, *heads.parameters()]
    optimizer = torch.optim.AdamW(learned, LR, weight_decay=DECAY, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps, pct_start=WARM)
    order = torch_rng(seed, "vision order")
    for step in range(steps):
        chosen = torch.randint(len(corpus.birds), (BATCH,), generator=order)
        # On CPUs, the backward pass of fused attention is several times slower than with plain attention.
        with sdpa_kernel(SDPBackend.MATH):
            with torch.autocast("cpu", torch.bfloat16):
                pooled, tokens = vision(pixels(corpus.pictures[chosen.numpy()]))
            features = [F.normalize(part.float(), dim=-1) * width**0.5 for part in (pooled, tokens.mean(1))]
            losses = [F.cross_entropy(head(features[i % 2]), labels[chosen, i // 2]) for i, head in enumerate(heads)]
            loss = torch.stack(losses).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
        progress(step + 1, f"traits {loss.item():.3f}")


def trait_labels(birds: Sequence[Bird]) -> Tensor:
    """The index of the kind and of each trait, [N, 12]."""
    return torch.tensor(
        [[values.index(bird.kind if name == "kind" else bird.traits[name]) for name, values in LABELS.items()]
         for bird in birds]
    )  # fmt: skip
