"""Generates text from images with a CoCa model of open_clip.

J. Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", TMLR 2022,
https://arxiv.org/abs/2205.01917. This module samples from the same logits as open_clip's own `generate`, which needs a
class that newer versions of transformers no longer have.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from client.completion.base import CompleterOptions, Generator, Request, subject
from common.errors import ModelError
from common.frozen.open_clip_models import OpenClip, load_open_clip
from common.media.values import Raw
from common.modality import Modality


class CoCaGenerator(Generator):
    """Continues the prompt token by token. The first candidate consists of the most likely tokens; the tokens of the
    other candidates are drawn at random."""

    def __init__(self, loaded: OpenClip, options: "CoCa") -> None:
        self.loaded, self.options = loaded, options
        # An empty text consists of a begin token, an end token, and padding.
        self.end = int(self.loaded.ids([""])[0, 1])
        self.tokenizer = getattr(loaded.tokenizer, "tokenizer", loaded.tokenizer)
        self.unsaid = [number for number in self.tokenizer.all_special_ids if number != self.end]
        self.context = self.loaded.ids([""]).shape[1]

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[list[Raw]]:
        """The texts without the prompt, because the prompt contains the label."""
        images = torch.stack([self._pixels(request.source) for request in requests]).to(self.loaded.device)
        seen = self.loaded.model(images)
        owner = torch.tensor([i for i, request in enumerate(requests) for _ in request.seeds]).to(images.device)
        draws = [None if c == 0 else torch.Generator().manual_seed(seed)
                 for request in requests for c, seed in enumerate(request.seeds)]  # fmt: skip
        ids = self.loaded.ids([requests[i].prompt for i in owner.tolist()])
        texts = self._continue(
            ids, {key: value[owner] for key, value in seen.items() if key.startswith("image")}, draws
        )
        made: list[list[Raw]] = [[] for _ in requests]
        for i, text in zip(owner.tolist(), texts, strict=True):
            made[i].append(text)
        return made

    def _pixels(self, source: Raw) -> Tensor:
        if not isinstance(source, Image.Image):
            raise ValueError(f"an image is needed, not {type(source).__name__}")
        return self.loaded.pixels(source)

    def _continue(self, ids: Tensor, seen: dict[str, Tensor], draws: Sequence[torch.Generator | None]) -> list[str]:
        """The generated texts. ids: prompts [B, L], each with an end token. seen: the model's features of the images.
        draws: a generator per row, None for the most likely tokens."""
        starts = (ids == self.end).float().argmax(1)
        ends, rows = starts.clone(), torch.arange(len(ids))
        open_rows = torch.ones(len(ids), dtype=torch.bool)
        ids[rows, starts] = 0
        while open_rows.any() and int(ends.max()) < min(self.context, int(starts.max()) + self.options.words) - 1:
            width = int(ends.max()) + 1
            said = self.loaded.model(
                None, ids[:, :width].to(self.loaded.device), image_latent=seen["image_features"],
                image_embs=seen["image_embs"], output_labels=False,
            )["logits"].float().cpu()  # fmt: skip
            chosen = self._choose(said[rows, ends - 1], draws)
            open_rows &= chosen != self.end
            ids[rows[open_rows], ends[open_rows]] = chosen[open_rows]
            ends += open_rows.long()
        return [self._text(row[start:end]) for row, start, end in zip(ids, starts.tolist(), ends.tolist(), strict=True)]

    def _choose(self, logits: Tensor, draws: Sequence[torch.Generator | None]) -> Tensor:
        """The next token of every row: logits [B, V] -> [B]."""
        logits[:, self.unsaid] = -torch.inf
        ranked, order = (logits / self.options.temperature).softmax(1).sort(1, descending=True)
        ranked[ranked.cumsum(1) - ranked > self.options.top_p] = 0
        picks = [0 if draw is None else int(torch.multinomial(row, 1, generator=draw))
                 for row, draw in zip(ranked, draws, strict=True)]  # fmt: skip
        return order[torch.arange(len(order)), torch.tensor(picks)]

    def _text(self, ids: Tensor) -> str:
        return str(self.tokenizer.decode(ids.tolist())).strip()


class CoCa(CompleterOptions):
    """Generates text from images with a CoCa model of open_clip."""

    model: str = "birds-coca"
    """Name of a CoCa model of open_clip."""
    words: int = Field(32, ge=1)
    """Maximum number of tokens of a text."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the distribution from which tokens are drawn."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Tokens are drawn from the most likely tokens whose probabilities sum up to this value."""

    def prompt(self, label: str, kind: str, source: Raw | None) -> str:
        """ "A photo of {class name}, a kind of {kind}, which has" (2.2)"""
        return f"{subject(label, kind)}, which has"

    def load(self, modality: Modality, device: str) -> CoCaGenerator:
        """The generator with the loaded model. The model must have a text decoder, which CLIP models lack."""
        loaded = load_open_clip(self.model, device)
        if not hasattr(loaded.model, "text_decoder"):
            raise ModelError(f"{loaded.folder}: not a CoCa model: it has no text decoder")
        return CoCaGenerator(loaded, self)
