"""Video networks of torchvision, pre-trained or from scratch.

D. Tran et al., "A Closer Look at Spatiotemporal Convolutions for Action Recognition", CVPR 2018 (r3d_18, mc3_18,
r2plus1d_18); H. Fan et al., "Multiscale Vision Transformers", ICCV 2021 (mvit); S. Xie et al., "Rethinking
Spatiotemporal Feature Learning", ECCV 2018 (s3d). The folder of a model contains torchvision's state dict as
`model.safetensors`.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from common.encoders.base import Tower
from common.encoders.frames import Frames, FramesEncoder
from common.encoders.shared.pixels import normalised
from common.encoders.shared.tower_options import PictureTowerOptions
from common.errors import ModelError
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw

WEIGHTS = "model.safetensors"
HEADS = {"fc", "classifier", "head"}
"""Names of the classifiers, which are left out."""
Network = Literal[
    "r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v1_b", "mvit_v2_s", "swin3d_t", "swin3d_s", "swin3d_b"
]


class TorchvisionVideoTower(Tower):
    """The features of a whole video are the input of the network's classifier, and also the only token."""

    def __init__(self, options: "TorchvisionVideo", network: nn.Module | None) -> None:
        self.frames, self._network = options.frames_encoder(), network
        preset = _preset(options.model)
        self.mean, self.deviation = tuple(preset.mean), tuple(preset.std)

    @property
    def network(self) -> nn.Module:
        """The model of torchvision without its classifier."""
        assert self._network is not None
        return self._network

    def inputs(self, raw: Raw) -> Tensor:
        """The pixels [T, 3, size, size] uint8."""
        return self.frames.prepare(raw)

    def blank(self) -> Tensor:
        """[T, 3, size, size] of zeros, uint8."""
        return self.frames.blank()

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, 1, D] and their mask."""
        values = normalised(inputs, self.mean, self.deviation).transpose(1, 2)
        pooled: Tensor = self.network(values).flatten(1)
        tokens = pooled.unsqueeze(1)
        return pooled, tokens, tokens.new_ones(tokens.shape[:2]).bool()


class TorchvisionVideo(PictureTowerOptions):
    """Frames of a video pass through a video network of torchvision."""

    model: Network = "r3d_18"
    """The architecture."""
    pretrained: str | None = None
    """Name of pre-trained weights, see `common.frozen.pretrained`. `null`: random weights, which needs `train: all`."""
    frames: int = Field(16, ge=1, le=256)
    """Number of frames T per video. The networks mvit need 16."""
    size: int = Field(112, ge=16, le=1024)
    """Pixels per side of a frame. The networks mvit need 224."""
    fps: float | None = Field(None, gt=0, le=1000)
    """Frames per second that are taken from the beginning of a video. shard.json must contain the videos' own rate in
    `rates`. `null`: `longer` chooses the frames."""
    longer: Literal["first", "spread"] = "spread"
    """Frames that are taken from a video with more than T frames when `fps` is `null`: the first T frames (`first`), or
    T frames evenly spread from the first to the last (`spread`)."""

    @property
    def starts_pretrained(self) -> bool:
        """Whether there are pre-trained weights."""
        return self.pretrained is not None

    @property
    def resampled_to(self) -> float | None:
        """Frames per second, if they are chosen by time."""
        return self.fps

    def frames_encoder(self) -> FramesEncoder:
        """The encoder whose preprocessing is used."""
        return Frames(frames=self.frames, size=self.size, fps=self.fps, longer=self.longer).build()

    def shape(self) -> tuple[int, int]:
        """The number of features, and one token."""
        return _width(self.model, self.frames, self.size), 1

    def load(self, weights: bool = True) -> TorchvisionVideoTower:
        """A new tower."""
        if not weights:
            return TorchvisionVideoTower(self, None)
        network = _headless(self.model)
        if self.pretrained is not None:
            _read(locate(self.pretrained), self.model, network)
        return TorchvisionVideoTower(self, network)

    def described(self) -> str:
        """A text with the options and a hash of the model's folder, which contains the weights."""
        content = "random" if self.pretrained is None else f"{self.pretrained} {fingerprint(locate(self.pretrained))}"
        frames = f"{self.frames} frames of {self.size} pixels, fps {self.fps}, longer {self.longer}"
        return f"torchvision-video {self.model} {frames} {content}"


class MeanOfAll(nn.Module):
    """The mean over time and space. The gradient of torch's pooling is not deterministic on every device."""

    def forward(self, maps: Tensor) -> Tensor:
        """[B, D, T, H, W] -> [B, D, 1, 1, 1]."""
        return maps.mean((2, 3, 4), keepdim=True)


def _headless(name: str) -> nn.Module:
    from torchvision.models import get_model

    network: nn.Module = get_model(name, weights=None)
    for head in HEADS & {own for own, _ in network.named_children()}:
        setattr(network, head, nn.Identity())
    for part in network.modules():
        if isinstance(part, nn.Conv3d):
            part.__class__ = nn.Conv3d  # torchvision's subclasses only choose arguments, which adapters cannot repeat
    if isinstance(getattr(network, "avgpool", None), nn.AdaptiveAvgPool3d):
        network.avgpool = MeanOfAll()
    return network


def _preset(name: str) -> Any:
    """The preprocessing with which torchvision's own weights were trained."""
    from torchvision.models import get_model_weights

    return get_model_weights(name)["DEFAULT"].transforms()


@lru_cache(maxsize=16)
def _width(name: str, frames: int, size: int) -> int:
    with torch.device("meta"), torch.no_grad():
        try:
            return int(_headless(name).eval()(torch.zeros(1, 3, frames, size, size)).flatten(1).shape[1])
        except (RuntimeError, ValueError, AssertionError) as error:
            where = f"{frames} frames of {size} x {size} pixels"
            raise ModelError(f"{name} cannot read {where}: {str(error).splitlines()[0]}") from None


def _read(folder: Path, name: str, network: nn.Module) -> None:
    try:
        weights = load_file(folder / WEIGHTS)
        own = {key: value for key, value in weights.items() if key.partition(".")[0] not in HEADS}
        network.load_state_dict(own)
    except (OSError, SafetensorError, RuntimeError) as error:
        said = str(error).splitlines()
        raise ModelError(f"{folder / WEIGHTS}: not weights of {name}: {' '.join(said[:2])}") from None
