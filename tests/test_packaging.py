"""What `pip install .` puts on a machine, beside the editable install that the other tests run on."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import altdiffusion_clip

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return next(folder.glob("*.whl"))


def test_there_is_one_version() -> None:
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None
    assert cited[1] == altdiffusion_clip.__version__
    assert f"## {altdiffusion_clip.__version__} (" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_wheel_holds_the_package_and_nothing_beside_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"altdiffusion_clip"}
    for needed in (
        "pipelines/alt_diffusion/pipeline_alt_diffusion.py",
        "benchmarks/startup.py",
        "emoji/things.json",
        "emoji/drawn.json",
        "emoji/languages/zh.json",
        "emoji/languages/LICENSE",
        "emoji/sprites/1f431.webp",
        "emoji/sprites/LICENSE",
        "emoji/emoji-m18/unet/diffusion_pytorch_model.safetensors",
        "emoji/emoji-m18/scorer/model.safetensors",
        "py.typed",
    ):
        assert f"altdiffusion_clip/{needed}" in names, needed
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for module in (ROOT / "altdiffusion_clip").rglob("*.py"):
        assert module.relative_to(ROOT).as_posix() in names, f"{module}: its package is not in pyproject.toml"


@pytest.mark.full
def test_it_draws_and_ranks_when_installed(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import altdiffusion_clip, sys; assert altdiffusion_clip.__file__.startswith(sys.argv[1])\n"
        "from altdiffusion_clip.cli import main\n"
        "sys.exit(main(['generate', '猫', '--steps', '2', '--num-images', '1', '--output', sys.argv[2]]))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code, str(site), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
    )
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "out" / "000-seed0.png").is_file()
    assert "cosine" in finished.stdout
