"""Tiny frozen models with random weights, saved to folders as their libraries save them."""

import json
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from torchvision.models import VisionTransformer
from torchvision.models.video import r3d_18
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    BertConfig,
    BertModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipImageProcessorPil,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    CLIPTextConfig,
    CLIPTextModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from deploy.pretrain.coca import architecture, make_model
from deploy.pretrain.diffusion import make_autoencoder, make_text_encoder, make_unet
from deploy.pretrain.tokenizer import make_tokenizer

NAMES = ("coca", "clip", "bert", "clip_text", "vision_transformer", "blip2", "diffusion", "wav2vec2", "ast", "whisper",
         "clap", "timm", "r3d")  # fmt: skip


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


def _sounds(folder: Path, model: Any, extractor: Any) -> Path:
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


def save_wav2vec2(folder: Path) -> Path:
    """transformers' wav2vec 2.0 with layer normalisation, which reads masks."""
    config = Wav2Vec2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(16, 16),
        conv_stride=(5, 4), conv_kernel=(10, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer", do_stable_layer_norm=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return _sounds(folder, Wav2Vec2Model(config), Wav2Vec2FeatureExtractor(return_attention_mask=True))


def save_ast(folder: Path) -> Path:
    """transformers' audio spectrogram transformer."""
    config = ASTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_length=64,
                       num_mel_bins=32, patch_size=16)  # fmt: skip
    torch.manual_seed(0)
    return _sounds(folder, ASTModel(config), ASTFeatureExtractor(num_mel_bins=32, max_length=64))


def save_whisper(folder: Path) -> Path:
    """transformers' Whisper for clips of one second."""
    config = WhisperConfig(
        d_model=24, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=16, max_source_positions=50, vocab_size=100,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    return _sounds(folder, WhisperModel(config), WhisperFeatureExtractor(feature_size=16, chunk_length=1))


def save_clap(folder: Path) -> Path:
    """transformers' CLAP for clips of one second."""
    sounds = {"hidden_size": 32, "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
              "num_hidden_layers": 2, "spec_size": 64, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4],
              "window_size": 4}  # fmt: skip
    texts = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
             "vocab_size": 50}  # fmt: skip
    torch.manual_seed(0)
    extractor = ClapFeatureExtractor(feature_size=16, max_length_s=1, truncation="rand_trunc", padding="repeatpad")
    return _sounds(folder, ClapModel(ClapConfig(audio_config=sounds, text_config=texts)), extractor)


def save_timm(folder: Path) -> Path:
    """timm's MobileNetV2, narrow, with a padding and a preprocessing of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = timm.create_model("mobilenetv2_050", num_classes=7, pad_type="same")
    config = {
        "architecture": "mobilenetv2_050", "num_classes": 7, "model_args": {"pad_type": "same"},
        "pretrained_cfg": {"first_conv": "conv_stem", "classifier": "classifier",
                           "input_size": [3, 40, 40], "interpolation": "bilinear", "crop_pct": 0.8,
                           "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder


def save_r3d(folder: Path) -> Path:
    """torchvision's ResNet of three-dimensional convolutions."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(r3d_18(weights=None).half().state_dict(), folder / "model.safetensors")
    return folder
