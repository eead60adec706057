"""The shapes of emoji-m9's parts, before training."""

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import (
    AltCLIPConfig,
    AltCLIPProcessor,
    AltCLIPTextConfig,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    XLMRobertaTokenizer,
)

from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji.tokenizers import MAX_LENGTH
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation


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


def new_student(tokenizer: XLMRobertaTokenizer) -> RobertaSeriesModelWithTransformation:
    """An XLM-R of 2.6M parameters in the shape of AltDiffusion-m9's text encoder."""
    return RobertaSeriesModelWithTransformation(
        RobertaSeriesConfig(
            vocab_size=len(tokenizer),
            hidden_size=192,
            num_hidden_layers=4,
            num_attention_heads=6,
            intermediate_size=768,
            max_position_embeddings=MAX_LENGTH + 3,
            project_dim=192,
        )
    )


def new_scorer(
    teacher: CLIPModel, student: RobertaSeriesModelWithTransformation, tokenizer: XLMRobertaTokenizer
) -> AltCLIPScorer:
    """The distilled student under the teacher's vision half and projections."""
    text = {key: value for key, value in student.config.to_dict().items() if key in AltCLIPTextConfig().to_dict()}
    vision = teacher.config.vision_config.to_dict()
    for values in (text, vision):
        values.pop("model_type")
    config = AltCLIPConfig(text_config=text, vision_config=vision, projection_dim=teacher.config.projection_dim)
    scorer = AltCLIPScorer(config)
    scorer.text_model.load_state_dict(student.state_dict())
    scorer.vision_model.load_state_dict(teacher.vision_model.state_dict())
    scorer.visual_projection.load_state_dict(teacher.visual_projection.state_dict())
    scorer.text_projection.load_state_dict(teacher.text_projection.state_dict())
    scorer.logit_scale.data.copy_(teacher.logit_scale.data)
    side = {"height": RESOLUTION, "width": RESOLUTION}
    scorer.processor = AltCLIPProcessor(
        CLIPImageProcessor(size={"shortest_edge": RESOLUTION}, crop_size=side),
        tokenizer,
    )
    return scorer.eval()


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


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, ending in pure noise so that plain backgrounds come out right."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
