"""Small real models that many tests use."""

import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation
from tests.processes import forkserver

# Where a script has started the tests in the background, Ctrl-C is ignored, and would be by the commands they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

forkserver()  # says what processes shall find imported, before the first of them starts

FULL = os.environ.get("ALTDIFFUSION_TESTS") == "full"
"""Whether all tests are run, with their full counts, as `make test-all` does."""


def in_full(*values: object) -> list[object]:
    """Parameters of a test that `make test` leaves to `make test-all`."""
    return [pytest.param(value, marks=pytest.mark.full) for value in values]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not FULL:
        left_out = [item for item in items if item.get_closest_marker("full")]
        items[:] = [item for item in items if not item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish(session: pytest.Session) -> None:
    # Most objects are the modules' and stay. The garbage collector need not look at them again and again.
    gc.collect()
    gc.freeze()


PUBLISHED = Path(__file__).parent / "fixtures" / "published"

SHAPES = {
    "m2": {"project_dim": 24},
    "m9": {"project_dim": 24, "has_pre_LN": True},
    "m18": {"project_dim": 40, "has_pre_transformation": True},
}
"""What tells the published text encoders apart, at a small size."""


def small_config(shape: str, **changes: object) -> RobertaSeriesConfig:
    small = {
        "vocab_size": 120,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 90,
    }
    return RobertaSeriesConfig(**{**small, **SHAPES[shape], **changes})


def small_encoder(shape: str, seed: int = 0, **changes: object) -> RobertaSeriesModelWithTransformation:
    torch.manual_seed(seed)
    model = RobertaSeriesModelWithTransformation(small_config(shape, **changes))
    with torch.no_grad():  # away from the initialisation, where biases are 0 and LayerNorms are identities
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def prompts(lengths: list[int], width: int = 77, pad: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of prompts with so many tokens, padded on the right, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), width), pad)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(4, 120, (length,), generator=generator)
        if length:
            ids[row, 0] = 0
        if length > 1:
            ids[row, length - 1] = 2
    return ids, (ids != pad).long()


@pytest.fixture(scope="session")
def published() -> Path:
    return PUBLISHED


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    with np.load(PUBLISHED / "golden.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def quick_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """emoji-m18 with a random UNet of the smallest size for 64 x 64 pixels, where it does not matter what is drawn."""
    from diffusers import UNet2DConditionModel

    from altdiffusion_clip.checkpoints.model_ids import DEFAULT_MODEL, resolve

    whole = Path(resolve(DEFAULT_MODEL))
    folder = tmp_path_factory.mktemp("quick")
    for part in whole.iterdir():
        if part.name != "unet":
            (folder / part.name).symlink_to(part)
    torch.manual_seed(0)
    small = {
        "sample_size": 8,
        "block_out_channels": (32, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
    }
    config = UNet2DConditionModel.load_config(whole, subfolder="unet")
    UNet2DConditionModel.from_config({**config, **small}).save_pretrained(folder / "unet")
    return folder
