"""A small latent diffusion model from captions to pictures of birds, as a Stable Diffusion pipeline of diffusers.

R. Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022,
https://arxiv.org/abs/2112.10752; velocity prediction after T. Salimans and J. Ho, "Progressive Distillation for Fast
Sampling of Diffusion Models", ICLR 2022, https://arxiv.org/abs/2202.00512.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from common.datasets.birds.drawing import SIZE
from common.seeding import derive, torch_rng
from deploy.pretrain.corpus import Corpus, pixels
from deploy.pretrain.tokenizer import make_tokenizer

WIDTH, CONTEXT, LATENT, SHRINK = 96, 40, 4, 4
BATCH, LR, WARMUP, EMA = 64, 1e-3, 300, 0.999
UNCONDITIONAL = 0.1
"""Share of empty captions, for classifier-free guidance."""
AUTOENCODER_BATCH, AUTOENCODER_LR, KL_WEIGHT = 16, 2e-3, 1e-5
Progress = Callable[[int, str], None]


def make_autoencoder() -> AutoencoderKL:
    """An autoencoder with random weights: 64 x 64 x 3 -> 16 x 16 x 4 and back."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(24, 32, 48),
        layers_per_block=1,
        latent_channels=LATENT,
        norm_num_groups=8,
        sample_size=SIZE,
    )


def make_unet() -> UNet2DConditionModel:
    """A UNet with random weights and two levels, 16 x 16 and 8 x 8. The lower level has attention to the caption."""
    return UNet2DConditionModel(
        sample_size=SIZE // SHRINK,
        in_channels=LATENT,
        out_channels=LATENT,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 104),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def make_text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """A text encoder with random weights and two layers of width 96."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def train_autoencoder(corpus: Corpus, steps: int, seed: int, progress: Progress) -> AutoencoderKL:
    """Train an autoencoder. The loss is the L1 and squared error of the picture, and a small KL term of the latents."""
    torch.manual_seed(derive(seed, "autoencoder"))
    model = make_autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), AUTOENCODER_LR, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, AUTOENCODER_LR, steps, pct_start=0.1)
    order = torch_rng(seed, "autoencoder order")
    for step in range(steps):
        chosen = torch.randint(len(corpus.birds), (AUTOENCODER_BATCH,), generator=order)
        images = pixels(corpus.pictures[chosen.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            latents = model.encode(images).latent_dist
            back = model.decode(latents.sample()).sample.float()
        error = F.l1_loss(back, images) + F.mse_loss(back, images)
        loss = error + KL_WEIGHT * latents.kl().mean()
        _descend(loss, model, optimizer)
        schedule.step()
        progress(step + 1, f"autoencoder {error.item():.4f}")
    return model.eval()


@torch.no_grad()
def encode(autoencoder: AutoencoderKL, corpus: Corpus) -> Tensor:
    """The latents [N, 4, 16, 16] of the corpus, scaled to standard deviation 1. The config gets the scale."""
    parts = []
    for start in range(0, len(corpus.birds), 256):
        images = pixels(corpus.pictures[start : start + 256])
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(autoencoder.encode(images).latent_dist.mode().float())
    latents = torch.cat(parts)
    autoencoder.register_to_config(scaling_factor=float(1 / latents.std()))
    return latents / latents.std()


def train_diffusion(
    corpus: Corpus, autoencoder: AutoencoderKL, out: Path, steps: int, seed: int, progress: Progress
) -> None:
    """Train the text encoder and the UNet together, and write the pipeline's folder with weights in float16."""
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = CONTEXT
    latents = encode(autoencoder, corpus)
    torch.manual_seed(derive(seed, "diffusion"))
    text_encoder, unet = make_text_encoder(tokenizer), make_unet()
    both = nn.ModuleList([text_encoder, unet])
    noise = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    optimizer = torch.optim.AdamW(both.parameters(), LR, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps, pct_start=min(0.3, WARMUP / steps))
    average = EMAModel(both.parameters(), EMA)
    draw = torch_rng(seed, "diffusion noise")
    for step, (chosen, texts) in enumerate(corpus.captions(BATCH, steps, tokenizer, CONTEXT, seed, UNCONDITIONAL)):
        clean = latents[chosen]
        when = torch.randint(noise.config.num_train_timesteps, (BATCH,), generator=draw)
        added = torch.randn(clean.shape, generator=draw)
        with sdpa_kernel(SDPBackend.MATH):
            with torch.autocast("cpu", torch.bfloat16):
                context = text_encoder(texts).last_hidden_state
                said = unet(noise.add_noise(clean, added, when), when, context).sample.float()
            loss = F.mse_loss(said, noise.get_velocity(clean, added, when))
            _descend(loss, both, optimizer)
        schedule.step()
        average.step(both.parameters())
        progress(step + 1, f"diffusion {loss.item():.4f}")
    average.copy_to(both.parameters())
    pipeline = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DPMSolverMultistepScheduler.from_config(noise.config, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(out, safe_serialization=True)


def _descend(loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
