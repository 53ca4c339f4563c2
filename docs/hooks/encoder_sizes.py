"""The table of sizes in docs/how-to/which-encoder.md, computed from networks without weights.

`python docs/hooks/encoder_sizes.py` prints it. A test compares the page with it.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.encoders.shared.tower_options import TowerOptions
from common.encoders.shared.trained_tower import TrainedTower
from common.encoders.timm import Timm
from common.encoders.torchvision_video import TorchvisionVideo
from common.encoders.transformers_sound import TransformersSound, TransformersSoundTower
from common.encoders.transformers_text import TransformersText, TransformersTextTower
from common.hardware.computing import compute_deterministically

WAYS = ("last-1-block", "lora", "all")
HEAD = (
    "| weights | encoder | licence | parameters | float32 | `last-1-block` sends | `lora` sends | `all` sends | "
    "memory, `last-1-block` | memory, `lora` | memory, `all` |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)
LICENCES = {
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
    "google-bert/bert-base-uncased": "apache-2.0",
    "facebook/wav2vec2-base-960h": "apache-2.0",
}
"""The licences on the cards. Those of timm are in its registry."""
BATCH = 4


class Unread:
    """Options of a pre-trained network whose weights are not read."""

    starts_pretrained = True

    def described(self) -> str:
        """No text, because there are no files."""
        return ""


class UnreadTimm(Unread, Timm):
    """A network of timm."""


class UnreadVideo(Unread, TorchvisionVideo):
    """A network of torchvision."""


class UnreadText(Unread, TransformersText):
    """BERT with the sizes of MiniLM-L6, or with its own."""

    def shape(self) -> tuple[int, int]:
        """The hidden size, and `length` tokens."""
        return self.config().hidden_size, self.length

    def config(self) -> Any:
        """The sizes of the network."""
        from transformers import BertConfig

        small = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}
        return BertConfig(**small if "MiniLM" in self.model else {})

    def load(self, weights: bool = True) -> TransformersTextTower:
        """A new tower."""
        from transformers import BertModel

        pooling = "mean" if "MiniLM" in self.model else None
        return TransformersTextTower(BertModel(self.config()), None, self.length, pooling)


class UnreadSound(Unread, TransformersSound):
    """wav2vec 2.0 with its usual sizes."""

    @property
    def resampled_to(self) -> float:
        """Samples per second."""
        return 16_000

    def shape(self) -> tuple[int, int]:
        """The hidden size, and `parts` tokens."""
        return 768, self.parts

    def load(self, weights: bool = True) -> TransformersSoundTower:
        """A new tower."""
        from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

        return TransformersSoundTower(
            Wav2Vec2Model(Wav2Vec2Config()), Wav2Vec2FeatureExtractor(), self.seconds, self.parts
        )


def _timm(name: str, **more: Any) -> Callable[..., TowerOptions]:
    return lambda **way: UnreadTimm(model=name, **more, **way)


NETWORKS: Mapping[str, tuple[str, Callable[..., TowerOptions]]] = {
    "timm/mobilenetv2_100.ra_in1k": ("timm", _timm("mobilenetv2_100.ra_in1k")),
    "timm/efficientnet_b0.ra_in1k": ("timm", _timm("efficientnet_b0.ra_in1k")),
    "timm/resnet50.a1_in1k": ("timm", _timm("resnet50.a1_in1k")),
    "timm/convnext_tiny.fb_in1k": ("timm", _timm("convnext_tiny.fb_in1k")),
    "timm/vit_small_patch16_224.augreg_in21k_ft_in1k": ("timm", _timm("vit_small_patch16_224.augreg_in21k_ft_in1k")),
    "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k": ("timm", _timm("vit_base_patch16_224.augreg2_in21k_ft_in1k")),
    "sentence-transformers/all-MiniLM-L6-v2": (
        "transformers-text", lambda **way: UnreadText(model="MiniLM", length=64, **way)),
    "google-bert/bert-base-uncased": ("transformers-text", lambda **way: UnreadText(model="bert", length=64, **way)),
    "facebook/wav2vec2-base-960h": (
        "transformers-sound", lambda **way: UnreadSound(model="wav2vec2", seconds=3, **way)),
    "r3d_18 of torchvision": ("torchvision-video", lambda **way: UnreadVideo(model="r3d_18", **way)),
}  # fmt: skip


def table() -> list[str]:
    """The lines of the table, for deterministic training, which keeps a little less."""
    compute_deterministically()
    return [*HEAD, *(_line(name, encoder, options) for name, (encoder, options) in NETWORKS.items())]


def _line(name: str, encoder: str, options: Callable[..., TowerOptions]) -> str:
    looks_at_masks = encoder.startswith("transformers")  # so it cannot run without memory
    with torch.device("cpu" if looks_at_masks else "meta"):
        made = {way: TrainedTower(options(train=way)) for way in WAYS}
    sent = [4 * _count(made[way]) for way in WAYS]
    memory = [_kept(made[way]) for way in WAYS]
    cells = [f"`{name}`", f"`{encoder}`", _licence(name), f"{sent[-1] / 4e6:.1f} million", _size(sent[-1])]
    return "| " + " | ".join([*cells, *map(_size, (*sent, *memory))]) + " |"


def _licence(name: str) -> str:
    from timm.models import get_pretrained_cfg

    own = get_pretrained_cfg(name.removeprefix("timm/")) if name.startswith("timm/") else None
    return str(own.license) if own else LICENCES.get(name, "see its documentation")


def _size(bytes_: float) -> str:
    """Megabytes, with one digit behind the point for small numbers."""
    return f"{bytes_ / 1e6:.{0 if bytes_ >= 1e7 else 1}f} MB"


def _count(encoder: nn.Module) -> int:
    return sum(value.numel() for value in encoder.parameters())


def _kept(encoder: TrainedTower) -> float:
    """Bytes of the values for one example that training keeps for the gradient."""
    weights = {id(value) for value in (*encoder.parameters(), *encoder.buffers())}
    device = next(encoder.parameters()).device
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        if id(value) not in weights:
            kept[value.untyped_storage()._cdata] = value
        return value

    with torch.device(device), torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        encoder.train()(torch.stack([encoder.blank().to(device)] * BATCH))
    return sum(value.untyped_storage().nbytes() for value in kept.values()) / BATCH


if __name__ == "__main__":
    print("\n".join(table()))
