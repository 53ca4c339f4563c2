"""A sound encoder of the transformers library: wav2vec 2.0, HuBERT, WavLM, AST, CLAP, or the encoder of Whisper.

T. Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", EMNLP 2020. The library is imported only
when a model is loaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import Tower
from common.encoders.shared.tower_options import TowerOptions
from common.errors import ModelError
from common.frozen.model_door import extractor_of, sound_model
from common.frozen.pretrained import fingerprint, locate
from common.media.sounds import Sound, resampled
from common.media.values import Raw

Kind = Literal["samples", "whisper", "clap", "spectrogram"]
"""The input of a model: samples of any length, the spectrogram of Whisper or of CLAP, or another one of fixed length
(AST)."""

KINDS: Mapping[str, Kind] = {
    "Wav2Vec2FeatureExtractor": "samples",
    "WhisperFeatureExtractor": "whisper",
    "ClapFeatureExtractor": "clap",
    "ASTFeatureExtractor": "spectrogram",
}


class TransformersSoundTower(Tower):
    """A recording is mixed to one channel and resampled to the rate of the model, and then goes through the model's own
    feature extractor.

    Models that read recordings of any length get a mask: the last row of the prepared value is 1 where the recording
    is and 0 where it is padded. Their pooled features are the mean over the recording alone. Models that read a fixed
    length (AST, CLAP) have pooled features of their own.
    """

    def __init__(self, model: Any, extractor: Any, seconds: float, parts: int) -> None:
        self.model, self.extractor, self.parts = model, extractor, parts
        self.kind, self.rate = _kind(extractor), int(extractor.sampling_rate)
        own = {"clap": "nb_max_samples", "whisper": "n_samples"}.get(self.kind)
        wanted = round(seconds * self.rate)
        self.samples = min(wanted, getattr(extractor, own)) if own else wanted
        for setting, value in (("apply_spec_augment", False), ("layerdrop", 0.0)):
            if model is not None and hasattr(model.config, setting):  # they draw from generators without our seeds
                setattr(model.config, setting, value)
        # Not in `blank`, which must also work on torch's device "meta", where some extractors do not.
        self._shape = self._shape_of_blank()

    @property
    def is_masked(self) -> bool:
        """Whether the model reads recordings of any length."""
        return self.kind in ("samples", "whisper")

    @property
    def network(self) -> nn.Module:
        """The model of transformers."""
        network: nn.Module = self.model
        return network

    def inputs(self, raw: Raw) -> Tensor:
        """The output of the extractor, float32: [2, samples] for models of samples, [frequencies + 1, frames] for
        Whisper, both with the mask as last row; else [..., frames, frequencies]."""
        if not isinstance(raw, Sound):
            raise ValueError(f"a recording is needed, not {type(raw).__name__}")
        return self._extracted(resampled(raw.mono(), raw.rate, self.rate, self.samples))

    def blank(self) -> Tensor:
        """Zeros in the shape of a prepared value."""
        return torch.zeros(self._shape)

    def sample(self) -> Tensor:
        """At most one second of samples, or the whole spectrogram."""
        return self.blank()[:, : self.rate] if self.kind == "samples" else self.blank()

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, parts, D] and their mask. A token is the mean over one of equal parts of
        the time."""
        if self.is_masked:
            frames, real = self._of_any_length(inputs[:, :-1], inputs[:, -1])
            pooled = (frames * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True)
        else:
            frames, pooled = self._of_fixed_length(inputs)
            real = frames.new_ones(frames.shape[:2])
        return pooled, *_parts(frames, real, self.parts)

    def _shape_of_blank(self) -> torch.Size:
        try:
            return self._extracted(np.zeros(self.samples, np.float32)).shape
        except (RuntimeError, ValueError, AssertionError) as error:
            raise ModelError(f"the model cannot read {self.samples} samples: {error}") from None

    def _extracted(self, wave: Any) -> Tensor:
        options: dict[str, Any] = {"sampling_rate": self.rate, "return_tensors": "pt"}
        if self.is_masked:
            options["return_attention_mask"] = True
        if self.kind == "samples":
            options |= {"padding": "max_length", "max_length": self.samples, "truncation": True}
        found = self.extractor(wave, **options)
        values: Tensor = found[self.extractor.model_input_names[0]][0].float()
        if not self.is_masked:
            return values
        mask = found["attention_mask"][0].float()
        return torch.cat([values.reshape(-1, len(mask)), mask[None]])

    def _of_fixed_length(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, T, D] of the last layer, and pooled features [B, D]."""
        if self.kind == "clap":
            longer = torch.zeros(len(inputs), 1, dtype=torch.bool, device=inputs.device)
            found = self.model(input_features=inputs, is_longer=longer)
            return found.last_hidden_state.flatten(2).transpose(1, 2), found.pooler_output.flatten(1)
        found = self.model(inputs)
        return found.last_hidden_state, found.pooler_output

    def _of_any_length(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [B, T, D] of the last layer, and their mask [B, T] float. At least one frame per row is real."""
        lengths = mask.sum(1).long()
        if self.kind == "samples":
            used = mask.long() if self.extractor.return_attention_mask else None
            frames = self.model(values[:, 0], attention_mask=used).last_hidden_state
            lengths = self.model._get_feat_extract_output_lengths(lengths)
        else:
            frames = self.model(values).last_hidden_state
            lengths = (lengths * frames.shape[1] + values.shape[-1] - 1) // values.shape[-1]
        places = torch.arange(frames.shape[1], device=frames.device)
        return frames, (places < lengths.clamp_min(1).unsqueeze(1)).to(frames.dtype)


class TransformersSound(TowerOptions):
    """Recordings pass through a pre-trained sound encoder of the transformers library."""

    model: str
    """Name of a pre-trained model, see `common.frozen.pretrained`."""
    seconds: float = Field(10.0, gt=0, le=3600)
    """Length of a recording in seconds. The rest of a longer one is cut off; a shorter one is padded and masked. A
    model with a fixed length (AST, CLAP, Whisper) uses at most its own length."""
    parts: int = Field(8, ge=1, le=4096)
    """Number of tokens. Each token is the mean over one of equal parts of the time."""

    @property
    def resampled_to(self) -> float:
        """Samples per second, which the folder of the model says."""
        return _number(locate(self.model), "preprocessor_config.json", "sampling_rate")

    def shape(self) -> tuple[int, int]:
        """The hidden size of the model, and `parts` tokens."""
        return _number(locate(self.model), "config.json", "d_model", "hidden_size"), self.parts

    def load(self, weights: bool = True) -> TransformersSoundTower:
        """A new tower."""
        folder = locate(self.model)
        network, extractor = sound_model(folder) if weights else (None, extractor_of(folder))
        return TransformersSoundTower(network, extractor, self.seconds, self.parts)

    def described(self) -> str:
        """A text with the options and a hash of the model's folder, which contains weights and preprocessing."""
        return f"transformers-sound {self.seconds:g} s, {self.parts} parts, {fingerprint(locate(self.model))}"


def _kind(extractor: Any) -> Kind:
    """Raises ModelError for an extractor that is not supported."""
    name = type(extractor).__name__
    if name not in KINDS:
        raise ModelError(f"{name}: not one of the supported feature extractors, {', '.join(KINDS)}")
    return KINDS[name]


def _parts(frames: Tensor, real: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Means [B, parts, D] over equal parts of frames [B, T, D], without frames that `real` [B, T] excludes, and the
    mask [B, parts] bool of the parts with any real frame. If there are fewer frames than parts, the last parts are
    empty."""
    size = -(-frames.shape[1] // parts)
    missing, batch = size * parts - frames.shape[1], len(frames)
    values = F.pad(frames * real.unsqueeze(-1), (0, 0, 0, missing)).reshape(batch, parts, size, -1).sum(2)
    counts = F.pad(real, (0, missing)).reshape(batch, parts, size).sum(2)
    return values / counts.clamp_min(1).unsqueeze(-1), counts > 0


def _number(folder: Path, name: str, *keys: str) -> int:
    """The first of the keys that a JSON file of a model has, also in its part about sounds.

    Raises ModelError.
    """
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
        found = found.get("audio_config") or found
        return int(next(found[key] for key in keys if key in found))
    except (OSError, ValueError, AttributeError, TypeError, StopIteration) as error:
        raise ModelError(f"{folder}: {name} has no {keys[-1]} of a sound encoder: {error}") from None
