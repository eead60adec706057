"""Every example in a docstring runs as it stands."""

import doctest
import importlib
import pkgutil

import pytest

import altdiffusion_clip
import altdiffusion_clip.pipelines

# An editable install finds `pipelines` by a hook and not below the package's folder.
MODULES = sorted(
    {
        module.name
        for package in (altdiffusion_clip, altdiffusion_clip.pipelines)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    }
)


def test_all_rooms_are_visited() -> None:
    for name in ("pipelines.alt_diffusion.pipeline_alt_diffusion", "emoji.concepts", "scoring", "training.losses"):
        assert f"altdiffusion_clip.{name}" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0
