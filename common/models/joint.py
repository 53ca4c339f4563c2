"""FedMVP's joint encoder: the tokens of all modalities attend to each other, and every vector meets in one space.

L. Che, J. Wang, X. Liu, F. Ma, "Leveraging Foundation Models for Multi-modal Federated Learning with Incomplete
Modality", 2024, https://arxiv.org/abs/2406.11048. Section numbers are those of docs/methods.md.

Departures, for what the paper leaves open: any number of modalities, of which the first in alphabetical order goes
through the layer of its own and each attends to the tokens of all others side by side; streams of different lengths are
padded with zeros to the longest before they are joined channel by channel, and a position counts where any stream is
real; padding is masked wherever something attends.
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
    """One modality: encoder, projection of its tokens to the width, and projection W_m of its features."""

    def __init__(self, encoder: Encoder, width: int, joint: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.tokens = nn.Linear(encoder.width, width)
        self.pooled = nn.Linear(encoder.width, joint)


@dataclass(frozen=True)
class Slot:
    """What stands for one modality: tokens [B, T, width], which of them are real [B, T] bool, and h_m [B, R]."""

    tokens: Tensor
    real: Tensor
    vector: Tensor

    def where(self, rows: Tensor, other: "Slot") -> "Slot":
        """This slot in the rows of a [B] bool mask, the other one in the rest."""
        by_row = rows.unsqueeze(1)
        return Slot(
            torch.where(by_row.unsqueeze(2), self.tokens, other.tokens),
            torch.where(by_row, self.real, other.real),
            torch.where(by_row, self.vector, other.vector),
        )


@dataclass(frozen=True)
class Joined:
    """What the model makes of a batch: h_m [B, R] by modality, h_J [B, R] and logits [B, K].

    In a row that misses m, h_m is that of the row's first modality, and zeros where it has none.
    """

    single: Mapping[Modality, Tensor]
    joint: Tensor
    logits: Tensor


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
        """Every vector of the batch and the prediction, in one pass."""
        slots = self._slots(batch)
        tokens, real = self._joint_tokens(slots)
        keep = real.unsqueeze(2)
        h = (self._to_space(tokens) * keep).sum(1) / keep.sum(1).clamp(min=1)
        if self.incomplete == "mean":
            has = torch.stack([batch.has(m) for m in self.modalities], dim=1).unsqueeze(2)
            vectors = torch.stack([slots[m].vector for m in self.modalities], dim=1)
            h = torch.where(has.all(1), h, (vectors * has).sum(1) / has.sum(1).clamp(min=1))
        return Joined({m: slot.vector for m, slot in slots.items()}, h, self.classify(self.refine(h) + h))

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
        """g, shared by every modality and the joint tokens: unit vectors [..., R]."""
        return F.normalize(self.shared(x), dim=-1)

    def _slots(self, batch: Batch) -> dict[Modality, Slot]:
        """A slot for every modality of the model; where a row misses one, its first modality lends both tokens and
        vector (2.7)."""
        held = {m: self._stream(batch, m) for m in self.modalities if batch.has(m).any()}
        if len(batch) and all(batch.has(m).all() for m in self.modalities):
            return held
        longest = max((slot.tokens.shape[1] for slot in held.values()), default=1)
        held = {m: _padded(slot, longest) for m, slot in held.items()}
        lent = self._empty(len(batch), longest)
        for m in reversed(held):
            lent = held[m].where(batch.has(m), lent)
        return {m: held[m].where(batch.has(m), lent) if m in held else lent for m in self.modalities}

    def _stream(self, batch: Batch, modality: Modality) -> Slot:
        """A modality's own slot, zeros in the rows without it; only rows that have it pass the encoder."""
        branch = self.branches[modality]
        assert isinstance(branch, Branch)
        present = batch.has(modality)
        pooled, tokens, real = branch.encoder.pooled_and_tokens(batch.inputs[modality][present])
        length = _filled(real)  # what no row fills would be padding in every layer
        tokens, real = tokens[:, :length], real[:, :length]
        places = positions(tokens.shape[1], self.width).to(tokens)
        projected = (branch.tokens(tokens) * self.token_scale + places) * real.unsqueeze(2)
        vector = self._to_space(branch.pooled(pooled))
        return Slot(*(_spread(part, present) for part in (projected, real, vector)))

    def _empty(self, rows: int, length: int) -> Slot:
        zeros = self.classifier.weight.new_zeros
        real = torch.zeros(rows, length, dtype=torch.bool, device=self.classifier.weight.device)
        return Slot(zeros(rows, length, self.width), real, zeros(rows, self.joint_width))

    def _joint_tokens(self, slots: Mapping[Modality, Slot]) -> tuple[Tensor, Tensor]:
        """Joint tokens [B, T, R] and which positions are real [B, T]."""
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


def _spread(part: Tensor, present: Tensor) -> Tensor:
    """[n, ...] into the rows of a [B] bool mask with n true values: [B, ...], zeros elsewhere."""
    return part.new_zeros(len(present), *part.shape[1:]).index_put((present.nonzero()[:, 0],), part)


def _filled(real: Tensor) -> int:
    """The places up to the last real one of any row, of a [B, T] bool mask; at least one."""
    places = real.any(0).nonzero()
    return int(places.max()) + 1 if len(places) else 1


def _padded(slot: Slot, length: int) -> Slot:
    """The slot with zeros up to a length, none of them real."""
    more = length - slot.tokens.shape[1]
    return Slot(F.pad(slot.tokens, (0, 0, 0, more)), F.pad(slot.real, (0, more)), slot.vector)


class Joint(ModelOptions):
    """Tokens of all modalities attend to each other."""

    width: int = Field(256, ge=2, multiple_of=2, le=16_384)
    """Of a modality's tokens."""
    heads: int = Field(4, ge=1, le=256)
    """Of a modality's attention."""
    joint_heads: int = Field(8, ge=1, le=256)
    """Of the joint layers' attention."""
    depth: int = Field(3, ge=1, le=64)
    """How many joint layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Before the classifier."""
    token_scale: float | None = Field(None, gt=0)
    """Of tokens before positions are added. None: the paper's 1 / sqrt(width), which leaves little of tokens that are
    small themselves."""
    incomplete: Literal["lend", "mean"] = "lend"
    """A row that misses a modality is predicted with what another one lends, or, the variant of 2.7, from the mean of
    the vectors h_m that it has in the place of h_J."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        for name, heads in (("heads", self.heads), ("joint_heads", self.joint_heads)):
            if self.width % heads:
                raise ValueError(f"width is {self.width}, which {name} = {heads} does not divide")
        return self

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> JointModel:
        """A new model with random weights."""
        return JointModel(encoders, classes, self)
