"""The frozen text tower of a CLIP or CoCa model of open_clip."""

from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import EncoderOptions, FrozenEncoder, Tower
from common.errors import ModelError
from common.frozen.model_door import open_clip_config
from common.frozen.open_clip_models import OpenClip, load_open_clip
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw

PADDING = 0
"""The padding id of all open_clip tokenizers. A model's `pad_id` in its config overrides it."""


class OpenClipTextTower(Tower):
    """The pooled features are in the space that images and texts share. The tokens are the outputs of the last
    block."""

    def __init__(self, loaded: OpenClip, width: int) -> None:
        self.loaded, self.width = loaded, width
        self.padding = open_clip_config(loaded.folder)["text_cfg"].get("pad_id", PADDING)

    @property
    def network(self) -> nn.Module:
        """The model of open_clip."""
        network: nn.Module = self.loaded.model
        return network

    def inputs(self, raw: Raw) -> Tensor:
        """The token ids [context length]."""
        if not isinstance(raw, str):
            raise ValueError(f"a text is needed, not {type(raw).__name__}")
        return self.loaded.ids([raw])[0]

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, context length, D] and their mask. The narrower of the two is padded with
        zeros."""
        found = self.loaded.model.forward_intermediates(
            text=inputs, text_indices=1, normalize=False, normalize_intermediates=True
        )
        tokens = found["text_intermediates"][-1]
        pooled = F.pad(found["text_features"], (0, self.width - found["text_features"].shape[-1]))
        return pooled, F.pad(tokens, (0, self.width - tokens.shape[-1])), inputs != self.padding


class OpenClipTextEncoder(FrozenEncoder):
    """Frozen features of texts."""

    def __init__(self, options: "OpenClipText") -> None:
        self.folder = locate(options.model)
        config = open_clip_config(self.folder)
        try:
            text = config["text_cfg"]
            width, length = max(config["embed_dim"], text["width"]), text.get("context_length", 77)
        except (KeyError, TypeError):
            raise ModelError(f"{self.folder}: its text tower is not a transformer of open_clip") from None
        super().__init__(width, length)
        self.options = options

    @property
    def tower(self) -> OpenClipTextTower:
        """The tower. The process keeps it after the first load."""
        return OpenClipTextTower(load_open_clip(self.options.model), self.width)

    def described(self) -> str:
        """A text with a hash of the model's folder, which contains weights and tokenizer."""
        return f"open-clip-text {fingerprint(self.folder)}"


class OpenClipText(EncoderOptions):
    """Texts pass through a frozen CLIP or CoCa model of open_clip."""

    model: str = "birds-coca"
    """Name of a frozen model, see `common.frozen.pretrained`."""

    def build(self) -> OpenClipTextEncoder:
        """The encoder for this model."""
        return OpenClipTextEncoder(self)
