"""Tiny frozen models with random weights, saved to folders as their libraries save them."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from torchvision.models import VisionTransformer
from transformers import (
    BertConfig,
    BertModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
)

from deploy.pretrain.coca import architecture, make_model
from deploy.pretrain.diffusion import make_autoencoder, make_text_encoder, make_unet
from deploy.pretrain.tokenizer import make_tokenizer


def save_coca(folder: Path, seed: int = 0) -> Path:
    """open_clip's CoCa with word tokenizer."""
    tokenizer = make_tokenizer()
    config = architecture(len(tokenizer))
    config["vision_cfg"] |= {"layers": 1, "patch_size": 16, "attn_pooler_queries": 4}
    config["text_cfg"]["layers"] = config["multimodal_cfg"]["layers"] = 1
    torch.manual_seed(seed)
    model = make_model(config)
    tokenizer.save_pretrained(folder)
    return _open_clip(folder, config, model)


def save_clip(folder: Path) -> Path:
    """open_clip's CLIP with its own tokenizer, the image tower wider than the shared space."""
    config: dict[str, Any] = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(0)
    return _open_clip(folder, config, open_clip.CLIP(**config))


def _open_clip(folder: Path, config: dict[str, Any], model: torch.nn.Module) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    preprocessing = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocessing})
    (folder / "open_clip_config.json").write_text(text)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def save_bert(folder: Path) -> Path:
    """transformers' BERT."""
    tokenizer = make_tokenizer()
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=64)  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_clip_text(folder: Path) -> Path:
    """The text tower of transformers' CLIP."""
    tokenizer = make_tokenizer()
    config = CLIPTextConfig(vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
                            intermediate_size=32, max_position_embeddings=64,
                            bos_token_id=1, eos_token_id=2)  # fmt: skip
    torch.manual_seed(0)
    CLIPTextModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_vision_transformer(folder: Path) -> Path:
    """torchvision's vision transformer."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = VisionTransformer(32, 8, 2, 2, 20, 40)
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def save_blip2(folder: Path) -> Path:
    """transformers' BLIP-2 with an OPT language model."""
    tokenizer = make_tokenizer()
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={**small, "image_size": 32, "patch_size": 16},
        qformer_config={**small, "encoder_hidden_size": 16, "vocab_size": len(tokenizer)},
        text_config={**small, "model_type": "opt", "ffn_dim": 16, "word_embed_proj_dim": 16, "eos_token_id": 2,
                     "vocab_size": len(tokenizer) + 1, "pad_token_id": 0, "bos_token_id": 1,
                     "max_position_embeddings": 64},
        num_query_tokens=4,
        image_token_index=len(tokenizer),
    )  # fmt: skip
    torch.manual_seed(0)
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    pictures = BlipImageProcessorPil(size={"height": 32, "width": 32})
    Blip2Processor(pictures, tokenizer, num_query_tokens=4).save_pretrained(folder)
    return folder


def save_diffusion(folder: Path) -> Path:
    """A Stable Diffusion pipeline of diffusers."""
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 40
    torch.manual_seed(0)
    StableDiffusionPipeline(
        vae=make_autoencoder(),
        text_encoder=make_text_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=make_unet(),
        scheduler=DPMSolverMultistepScheduler(prediction_type="v_prediction", steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
