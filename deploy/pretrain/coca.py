"""A small CoCa: an image tower and a text tower in one space, and a captioner on top.

J. Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", TMLR 2022,
https://arxiv.org/abs/2205.01917; architecture and loss are open_clip's. From captions alone, such a small vision tower
learns almost nothing in acceptable time on two cores. It is therefore first trained to classify the birds' traits.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip import CoCa
from open_clip.loss import CoCaLoss
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from common.datasets.birds.drawing import SIZE
from common.seeding import derive
from deploy.pretrain.corpus import Corpus, pixels
from deploy.pretrain.tokenizer import make_tokenizer
from deploy.pretrain.traits import train_traits

WIDTH, CONTEXT = 128, 40
BATCH, LR, WARM, DECAY = 160, 8e-4, 0.08, 0.05
CAPTION_WEIGHT, CONTRASTIVE_WEIGHT = 2.0, 1.0
MEAN = STD = [0.5, 0.5, 0.5]


def architecture(words: int) -> dict[str, Any]:
    """The configuration of open_clip's CoCa: 2.3 million parameters."""
    text = {"context_length": CONTEXT, "vocab_size": words, "width": WIDTH, "heads": 4, "layers": 2}
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {
            "image_size": SIZE,
            "patch_size": 8,
            "layers": 5,
            "width": WIDTH,
            "head_width": 32,
            "attentional_pool": True,
            "attn_pooler_queries": 32,
            "attn_pooler_heads": 4,
            "output_tokens": True,
        },
        "text_cfg": {**text, "embed_cls": True, "output_tokens": True, "hf_tokenizer_name": "."},
        "multimodal_cfg": {**text, "attn_pooler_heads": 4},
        "custom_text": True,
    }


def make_model(config: Mapping[str, Any]) -> CoCa:
    """A model with random weights."""
    model = CoCa(**{key: config[key] for key in ("embed_dim", "multimodal_cfg", "text_cfg", "vision_cfg")})
    # open_clip does not initialise this parameter.
    nn.init.normal_(model.text_decoder.text_projection, std=model.text_decoder.width**-0.5)
    return model


def train_coca(
    corpus: Corpus, out: Path, steps: Sequence[int], seed: int, progress: Callable[[int, str], None]
) -> None:
    """Train on the corpus, first the vision tower, then the whole model, and write a folder in open_clip's format with
    weights in float16."""
    tokenizer = make_tokenizer()
    config = architecture(len(tokenizer))
    torch.manual_seed(derive(seed, "coca"))
    model = make_model(config)
    train_traits(model.visual, model.visual.parameters(), WIDTH, corpus, steps[0], seed, progress)
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=DECAY, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps[1], pct_start=WARM)
    loss = CoCaLoss(CAPTION_WEIGHT, CONTRASTIVE_WEIGHT, pad_id=tokenizer.pad_token_id)
    for step, (chosen, texts) in enumerate(corpus.captions(BATCH, steps[1], tokenizer, CONTEXT, seed)):
        images = pixels(corpus.pictures[chosen.numpy()])
        # On CPUs, the backward pass of fused attention is several times slower than with plain attention.
        with sdpa_kernel(SDPBackend.MATH):
            with torch.autocast("cpu", torch.bfloat16):
                said = model(images, texts)
            whole = {key: value.float() if value.is_floating_point() else value for key, value in said.items()}
            contrastive, captioning = loss(**whole)
            optimizer.zero_grad()
            (contrastive + captioning).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress(step + 1, f"contrastive {contrastive.item():.3f} captioning {captioning.item():.3f}")
    out.mkdir(parents=True, exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in model.state_dict().items()},
              out / "open_clip_model.safetensors")  # fmt: skip
    preprocessing = {"mean": MEAN, "std": STD, "interpolation": "bilinear", "resize_mode": "squash"}
    described = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (out / "open_clip_config.json").write_text(json.dumps(described, indent=1) + "\n")
    tokenizer.save_pretrained(out)
