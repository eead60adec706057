"""The shapes of emoji-m18's parts, before training."""

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer, XLMRobertaTokenizer

from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji.tokenizers import MAX_LENGTH
from altdiffusion_clip.text_encoder import RobertaSeriesConfig

PROJECT_DIM = 320
"""Width of the conditioning and of the teacher's text tower. It differs from other widths, as in m18."""


def new_vae() -> AutoencoderKL:
    """An autoencoder of 3.1M parameters: 128x128 pixels to 16x16 latents of eight channels."""
    return AutoencoderKL(
        block_out_channels=(16, 48, 96, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=RESOLUTION,
        mid_block_add_attention=False,
    )


def new_teacher(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An English CLIP of 8M parameters for 128x128 pictures."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": PROJECT_DIM,
        "intermediate_size": 4 * PROJECT_DIM,
        "num_hidden_layers": 4,
        "num_attention_heads": 5,
        "max_position_embeddings": MAX_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "image_size": RESOLUTION,
        "patch_size": 16,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=192))


def new_student_config(tokenizer: XLMRobertaTokenizer) -> RobertaSeriesConfig:
    """An XLM-R of 6M parameters in the shape of AltDiffusion-m18's text encoder."""
    return RobertaSeriesConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=5,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=MAX_LENGTH + 3,
        project_dim=PROJECT_DIM,
        has_pre_transformation=True,
    )


def image_processor() -> CLIPImageProcessor:
    """The teacher's image processor."""
    side = {"height": RESOLUTION, "width": RESOLUTION}
    return CLIPImageProcessor(size={"shortest_edge": RESOLUTION}, crop_size=side)


def new_unet() -> UNet2DConditionModel:
    """A UNet of 23M parameters on 16x16 latents.

    Two levels, because a third one of 4x4 is too coarse for counting small things.
    """
    return UNet2DConditionModel(
        sample_size=RESOLUTION // 8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(128, 256),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        cross_attention_dim=PROJECT_DIM,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, but ending in pure noise, so that plain grounds come out right."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )
