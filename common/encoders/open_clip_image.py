"""The frozen image tower of a CLIP or CoCa model of open_clip."""

from PIL import Image as Picture
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import EncoderOptions, FrozenEncoder, Tower
from common.errors import ModelError
from common.frozen.model_door import open_clip_config
from common.frozen.open_clip_models import OpenClip, load_open_clip
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw


class OpenClipImageTower(Tower):
    """The pooled features are in the space that images and texts share. The tokens are the outputs of the last block
    for the patches, averaged over grid x grid cells."""

    def __init__(self, loaded: OpenClip, grid: int, width: int) -> None:
        self.loaded, self.grid, self.width = loaded, grid, width

    @property
    def network(self) -> nn.Module:
        """The model of open_clip."""
        network: nn.Module = self.loaded.model
        return network

    def inputs(self, raw: Raw) -> Tensor:
        """The pixels [3, H, W]."""
        if not isinstance(raw, Picture.Image):
            raise ValueError(f"an image is needed, not {type(raw).__name__}")
        return self.loaded.pixels(raw)

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, grid * grid, D] and their mask. The narrower of the two is padded with
        zeros."""
        found = self.loaded.model.forward_intermediates(
            image=inputs, image_indices=1, normalize=False, normalize_intermediates=True
        )
        cells = F.adaptive_avg_pool2d(found["image_intermediates"][-1], self.grid).flatten(2).transpose(1, 2)
        tokens = F.pad(cells, (0, self.width - cells.shape[-1]))
        pooled = F.pad(found["image_features"], (0, self.width - found["image_features"].shape[-1]))
        return pooled, tokens, tokens.new_ones(tokens.shape[:2]).bool()


class OpenClipImageEncoder(FrozenEncoder):
    """Frozen features of images."""

    def __init__(self, options: "OpenClipImage") -> None:
        self.folder = locate(options.model)
        config = open_clip_config(self.folder)
        try:
            width = max(config["embed_dim"], config["vision_cfg"]["width"])
        except (KeyError, TypeError):
            raise ModelError(f"{self.folder}: its image tower is not a vision transformer of open_clip") from None
        super().__init__(width, options.grid**2)
        self.options = options

    @property
    def tower(self) -> OpenClipImageTower:
        """The tower. The process keeps it after the first load."""
        return OpenClipImageTower(load_open_clip(self.options.model), self.options.grid, self.width)

    def described(self) -> str:
        """A text with the grid and a hash of the model's folder, which contains weights and preprocessing."""
        return f"open-clip-image grid {self.options.grid} {fingerprint(self.folder)}"


class OpenClipImage(EncoderOptions):
    """Pictures pass through a frozen CLIP or CoCa model of open_clip."""

    model: str = "birds-coca"
    """Name of a frozen model, see `common.frozen.pretrained`."""
    grid: int = Field(4, ge=1, le=64)
    """Cells per side of the picture. Each token is the mean over one of grid x grid cells."""

    def build(self) -> OpenClipImageEncoder:
        """The encoder for this model."""
        return OpenClipImageEncoder(self)
