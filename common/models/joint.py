"""FedMVP's joint encoder. The tokens of all modalities attend to each other, and all vectors are in one space.

L. Che, J. Wang, X. Liu, F. Ma, "Leveraging Foundation Models for Multi-modal Federated Learning with Incomplete
Modality", 2024, https://arxiv.org/abs/2406.11048. Section numbers are those of docs/methods.md.

Choices where the paper leaves details open:

- There may be any number of modalities. The first one in alphabetical order goes through an additional layer. Each one
  attends to the concatenated tokens of all others.
- Streams of different lengths are padded with zeros to the longest before their channels are joined. A position is real
  if any stream is real there.
- Padding is masked in every attention layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions, MultimodalModel
from common.models.shared.attention import AttentionLayer, positions
from common.types import Batch


class Branch(nn.Module):
    """The layers of one modality: the encoder, the projection of its tokens, and the projection W_m of its features."""

    def __init__(self, encoder: Encoder, width: int, joint: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokens = nn.Linear(encoder.width, width)
        self.pooled = nn.Linear(encoder.width, joint)


@dataclass(frozen=True)
class Slot:
    """The representation of one modality: tokens [B, T, width], the mask of real tokens [B, T] bool, and h_m [B, R]."""

    tokens: Tensor
    real: Tensor
    vector: Tensor

    def where(self, rows: Tensor, other: "Slot") -> "Slot":
        """This slot in the rows of a mask [B] bool, the other slot in the remaining rows."""
        by_row = rows.unsqueeze(1)
        return Slot(
            torch.where(by_row.unsqueeze(2), self.tokens, other.tokens),
            torch.where(by_row, self.real, other.real),
            torch.where(by_row, self.vector, other.vector),
        )


@dataclass(frozen=True)
class Joined:
    """The model's result for a batch: h_m [B, R] by modality, h_J [B, R], logits [B, K], and the encoders' features z_m
    [B, D_m] of the modalities that some row has, with zeros in rows without m.

    In a row without modality m, h_m is the vector of the row's first modality, or zeros if the row has no modality.
    """

    single: Mapping[Modality, Tensor]
    joint: Tensor
    logits: Tensor
    features: Mapping[Modality, Tensor]


class JointModel(MultimodalModel):
    """FedMVP's model for any number M of modalities (2.3); R = M * width."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int, options: "Joint") -> None:
        super().__init__()
        width, joint = options.width, options.width * len(encoders)
        self.width, self.joint_width = width, joint
        self.incomplete = options.incomplete
        self.token_scale = options.token_scale or width**-0.5
        self.branches = nn.ModuleDict({m: Branch(encoders[m], width, joint) for m in sorted(encoders)})
        self.first = AttentionLayer(width, options.heads)
        self.cross = nn.ModuleDict({m: AttentionLayer(width, options.heads) for m in sorted(encoders)})
        self.layers = nn.ModuleList(AttentionLayer(joint, options.joint_heads) for _ in range(options.depth))
        self.norm = nn.LayerNorm(joint)
        self.shared = nn.Linear(joint, joint)
        self.refine = nn.Sequential(
            nn.Linear(joint, joint), nn.ReLU(), nn.Dropout(options.dropout), nn.Linear(joint, joint)
        )
        self.classifier = nn.Linear(joint, classes)

    def join(self, batch: Batch) -> Joined:
        """All vectors of the batch and the prediction, in one pass."""
        streams = {m: self._stream(batch, m) for m in self.modalities if batch.holds(m)}
        slots = self._slots({m: slot for m, (slot, _) in streams.items()}, batch)
        tokens, real = self._joint_tokens(slots)
        keep = real.unsqueeze(2)
        h = (self._to_space(tokens) * keep).sum(1) / keep.sum(1).clamp(min=1)
        if self.incomplete == "mean":
            has = torch.stack([batch.has(m) for m in self.modalities], dim=1).unsqueeze(2)
            vectors = torch.stack([slots[m].vector for m in self.modalities], dim=1)
            h = torch.where(has.all(1), h, (vectors * has).sum(1) / has.sum(1).clamp(min=1))
        single, features = {m: slot.vector for m, slot in slots.items()}, {m: z for m, (_, z) in streams.items()}
        return Joined(single, h, self.classify(self.refine(h) + h), features)

    def classify(self, h: Tensor) -> Tensor:
        """C(h): logits [B, K] of vectors [B, R]."""
        logits: Tensor = self.classifier(h)
        return logits

    def represent(self, batch: Batch) -> Tensor:
        """h_J [B, R]."""
        return self.join(batch).joint

    def represent_all(self, batch: Batch) -> Tensor:
        """[h_m for every modality; h_J], [B, (M + 1) R]."""
        joined = self.join(batch)
        return torch.cat([*(joined.single[m] for m in self.modalities), joined.joint], dim=1)

    def predict(self, batch: Batch) -> Tensor:
        """C(W2 dropout(relu(W1 h_J)) + h_J): logits [B, K]."""
        return self.join(batch).logits

    def _to_space(self, x: Tensor) -> Tensor:
        """The projection g, which all modalities and the joint tokens share: unit vectors [..., R]."""
        return F.normalize(self.shared(x), dim=-1)

    def _slots(self, held: dict[Modality, Slot], batch: Batch) -> dict[Modality, Slot]:
        """A slot for every modality of the model, from those that some row has. If a row lacks a modality, the row's
        first modality provides tokens and vector (2.7)."""
        if len(batch) and batch.is_full(self.modalities):
            return held
        longest = max((slot.tokens.shape[1] for slot in held.values()), default=1)
        held = {m: _padded(slot, longest) for m, slot in held.items()}
        lent = self._empty(len(batch), longest)
        for m in reversed(held):
            lent = held[m].where(batch.has(m), lent)
        return {m: held[m].where(batch.has(m), lent) if m in held else lent for m in self.modalities}

    def _stream(self, batch: Batch, modality: Modality) -> tuple[Slot, Tensor]:
        """The slot of a modality and its features z_m [B, D_m], with zeros in rows without it. Only rows with the
        modality pass through the encoder."""
        branch = self.branches[modality]
        assert isinstance(branch, Branch)
        present = batch.index(modality)
        pooled, tokens, real = branch.encoder.pooled_and_tokens(batch.inputs[modality][present])
        length = _filled(real)  # positions that are padding in all rows are cut off
        tokens, real = tokens[:, :length], real[:, :length]
        places = positions(tokens.shape[1], self.width, tokens.device).to(tokens.dtype)
        projected = (branch.tokens(tokens) * self.token_scale + places) * real.unsqueeze(2)
        vector = self._to_space(branch.pooled(pooled))
        slot = Slot(*(_spread(part, present, len(batch)) for part in (projected, real, vector)))
        return slot, _spread(pooled, present, len(batch))

    def _empty(self, rows: int, length: int) -> Slot:
        zeros = self.classifier.weight.new_zeros
        real = torch.zeros(rows, length, dtype=torch.bool, device=self.classifier.weight.device)
        return Slot(zeros(rows, length, self.width), real, zeros(rows, self.joint_width))

    def _joint_tokens(self, slots: Mapping[Modality, Slot]) -> tuple[Tensor, Tensor]:
        """The joint tokens [B, T, R] and the mask of real positions [B, T]."""
        tokens = {m: slot.tokens for m, slot in slots.items()}
        leader = self.modalities[0]
        tokens[leader] = self.first(tokens[leader], tokens[leader], slots[leader].real)
        crossed = []
        for m in self.modalities:
            others = [k for k in self.modalities if k != m] or [m]
            read = torch.cat([tokens[k] for k in others], dim=1)
            real = torch.cat([slots[k].real for k in others], dim=1)
            attended = self.cross[m](tokens[m], read, real) * slots[m].real.unsqueeze(2)
            crossed.append(replace(slots[m], tokens=attended))
        longest = max(slot.tokens.shape[1] for slot in crossed)
        crossed = [_padded(slot, longest) for slot in crossed]
        joined, real = torch.cat([s.tokens for s in crossed], dim=2), torch.stack([s.real for s in crossed]).any(0)
        x = joined
        for layer in self.layers:
            x = layer(x, joined, real)
        return self.norm(x), real


def _spread(part: Tensor, places: Tensor, rows: int) -> Tensor:
    """The rows [n, ...] at n places [n] of B rows, with zeros elsewhere: [B, ...]."""
    return part.new_zeros(rows, *part.shape[1:]).index_put((places,), part)


def _filled(real: Tensor) -> int:
    """The number of positions up to the last real one of any row, for a mask [B, T] bool; at least one."""
    places = real.any(0).nonzero()
    return int(places.max()) + 1 if len(places) else 1


def _padded(slot: Slot, length: int) -> Slot:
    """The slot, padded with zeros to a length. The padding is not real."""
    more = length - slot.tokens.shape[1]
    return Slot(F.pad(slot.tokens, (0, 0, 0, more)), F.pad(slot.real, (0, more)), slot.vector)


class Joint(ModelOptions):
    """The tokens of all modalities attend to each other."""

    width: int = Field(256, ge=2, multiple_of=2, le=16_384)
    """Width of the tokens of a modality."""
    heads: int = Field(4, ge=1, le=256)
    """Attention heads of the layers for one modality."""
    joint_heads: int = Field(8, ge=1, le=256)
    """Attention heads of the joint layers."""
    depth: int = Field(3, ge=1, le=64)
    """Number of joint layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout rate before the classifier."""
    token_scale: float | None = Field(None, gt=0)
    """Factor of the tokens before positions are added. `null`: the paper's 1 / sqrt(width), which makes tokens with
    small values very small compared with the positions."""
    incomplete: Literal["lend", "mean"] = "lend"
    """Prediction for a row that lacks a modality. `lend`: another modality of the row provides tokens and vector.
    `mean` (the variant in 2.7): the mean of the row's vectors h_m replaces h_J."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        for name, heads in (("heads", self.heads), ("joint_heads", self.joint_heads)):
            if self.width % heads:
                raise ValueError(f"width is {self.width}, it must be a multiple of {name}, which is {heads}")
        return self

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> JointModel:
        """A new model with random weights."""
        return JointModel(encoders, classes, self)
