"""What all tests share. It imports nothing large: pytest's first process reads it too, and runs no test."""

import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest

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
    import torch
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
