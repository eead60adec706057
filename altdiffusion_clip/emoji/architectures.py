"""The shapes of emoji-m9's parts, before training."""

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer, XLMRobertaTokenizer

from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji_m18.tokenizers import MAX_LENGTH
from altdiffusion_clip.text_encoder import RobertaSeriesConfig


def new_vae() -> AutoencoderKL:
    """An autoencoder of 0.7M parameters: 64x64 pixels to 16x16 latents of four channels."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=RESOLUTION,
        mid_block_add_attention=False,
    )


def new_teacher(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An English CLIP of 2.6M parameters for 64x64 pictures."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": MAX_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": RESOLUTION,
        "patch_size": 8,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def new_student_config(tokenizer: XLMRobertaTokenizer) -> RobertaSeriesConfig:
    """An XLM-R of 2.6M parameters in the shape of AltDiffusion-m9's text encoder."""
    return RobertaSeriesConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        intermediate_size=768,
        max_position_embeddings=MAX_LENGTH + 3,
        project_dim=192,
    )


def image_processor() -> CLIPImageProcessor:
    """The teacher's image processor."""
    side = {"height": RESOLUTION, "width": RESOLUTION}
    return CLIPImageProcessor(size={"shortest_edge": RESOLUTION}, crop_size=side)


def new_unet() -> UNet2DConditionModel:
    """A UNet of 7M parameters on 16x16 latents."""
    return UNet2DConditionModel(
        sample_size=RESOLUTION // 4,
        block_out_channels=(32, 96, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=192,
        attention_head_dim=4,
        norm_num_groups=16,
    )
