"""Settings in the text of a PNG: ours, and the WebUIs'."""

import json
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from altdiffusion_clip.drawing.png_text import (
    COMFYUI_KEY,
    SETTINGS_KEY,
    WEBUI_KEY,
    save_with_settings,
    settings_from,
    settings_from_text,
    settings_of,
    webui_text,
)
from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.schedulers import scheduler_name


def png(path: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_itxt(key, value)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


def read(path: Path) -> tuple[Settings, list[str]]:
    return settings_from(path, "some-model", 7.5)


def test_ours_is_read_whole(tmp_path: Path) -> None:
    lent = {"batch_prompts": ("a", "猫"), "lora": "s:1", "image": "i", "mask": "k", "strength": 0.5}
    settings = Settings("猫", 5, (4, 5), "m", "狗", 9, 2.5, 64, 32, "cpu", "float16", 4, "", "euler-a", **lent)
    save_with_settings(Image.new("RGB", (4, 4)), settings, tmp_path / "a.png")
    assert settings_of(tmp_path / "a.png") == settings
    assert read(tmp_path / "a.png") == (settings, [])


def test_older_settings_are_read(tmp_path: Path) -> None:
    older = {"prompt": "猫", "seed": 5, "batch_seeds": [5, 6], "model": "emoji-m18", "guidance_scale": 3.0}
    settings = settings_of(png(tmp_path / "a.png", **{SETTINGS_KEY: json.dumps(older)}))
    assert (settings.batch_seeds, settings.batch_prompts, settings.guidance_scale) == ((5, 6), (), 3.0)


def test_other_tools_find_the_parameters(tmp_path: Path) -> None:
    settings = Settings("a cat,\nsitting", 5, (5,), "/models/m:1", "a dog", 9, 2.5, scheduler="euler-a", strength=0.5)
    save_with_settings(Image.new("RGB", (32, 64)), settings, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.text[WEBUI_KEY] == (
            "a cat,\nsitting\nNegative prompt: a dog\n"
            "Steps: 9, Sampler: Euler a, CFG scale: 2.5, Seed: 5, Size: 32x64, Denoising strength: 0.5, Model: m:1"
        )


@pytest.mark.parametrize("scheduler", ["", "ddim", "dpm++", "euler", "euler-a", "heun", "pndm", "unipc"])
def test_what_is_written_for_other_tools_is_read(scheduler: str, tmp_path: Path) -> None:
    settings = Settings("a (cat:1.2), on\na mat", 77, (77,), "m", "a dog", 31, 4.5, 64, 96, scheduler=scheduler)
    found, left = read(png(tmp_path / "a.png", **{WEBUI_KEY: webui_text(settings, (96, 64))}))
    same = (
        "prompt",
        "negative_prompt",
        "seed",
        "num_inference_steps",
        "guidance_scale",
        "width",
        "height",
        "scheduler",
    )
    assert all(getattr(found, name) == getattr(settings, name) for name in same)
    assert found.model == "some-model"
    assert left == ["Model: m"]


def test_a_picture_of_automatic1111s(tmp_path: Path) -> None:
    text = (
        "masterpiece, 1girl <lora:style:0.8>\n"
        "Negative prompt: lowres, bad hands\n"
        "Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1234567890, Size: 512x768, Model hash: 6ce0161689, "
        'Model: v1-5, Clip skip: 2, Lora hashes: "style: 1a2b, other: 3c", Version: v1.6.0'
    )
    found, left = read(png(tmp_path / "a.png", **{WEBUI_KEY: text}))
    assert found.prompt == "masterpiece, 1girl <lora:style:0.8>"
    assert (found.negative_prompt, found.seed, found.scheduler) == ("lowres, bad hands", 1234567890, "dpm++-karras")
    assert (found.width, found.height, found.num_inference_steps, found.guidance_scale) == (512, 768, 28, 7.0)
    assert left == [
        "Model hash: 6ce0161689", "Model: v1-5", "Clip skip: 2", "Lora hashes: style: 1a2b, other: 3c",
        "Version: v1.6.0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "scheduler", "left"),
    [
        ("Sampler: DPM++ 2M, Schedule type: Karras", "dpm++-karras", []),
        ("Sampler: DPM++ 2M SDE, Schedule type: Automatic", "dpm++-sde", []),
        ("Sampler: Euler, Schedule type: Karras", "euler", ["schedule: Karras"]),
        ("Sampler: Restart, Schedule type: Karras", "", ["sampler: Restart Karras"]),
    ],
)
def test_samplers_with_a_schedule_beside_them(fields: str, scheduler: str, left: list[str], tmp_path: Path) -> None:
    found, others = read(png(tmp_path / "a.png", **{WEBUI_KEY: f"a cat\nSteps: 20, {fields}, Seed: 1"}))
    assert (found.scheduler, others) == (scheduler, left)


def test_parameters_without_their_last_line_are_a_prompt(tmp_path: Path) -> None:
    found, left = read(png(tmp_path / "a.png", **{WEBUI_KEY: "just a cat"}))
    assert (found.prompt, found.seed, left) == ("just a cat", 0, [])


GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 99, "steps": 25, "cfg": 6.5, "sampler_name": "euler_ancestral", "scheduler": "normal",
            "denoise": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 640, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0], "clip": ["4", 1]}},
    "8": {"class_type": "PrimitiveString", "inputs": {"string": "blurry"}},
}  # fmt: skip


def test_a_picture_of_comfyuis(tmp_path: Path) -> None:
    found, left = read(png(tmp_path / "a.png", **{COMFYUI_KEY: json.dumps(GRAPH)}))
    assert (found.prompt, found.negative_prompt, found.seed) == ("a red fox", "blurry", 99)
    assert (found.width, found.height, found.num_inference_steps, found.guidance_scale) == (512, 640, 25, 6.5)
    assert found.scheduler == "euler-a"
    assert left == ["node: CheckpointLoaderSimple", "node: PrimitiveString"]


def test_comfyuis_karras(tmp_path: Path) -> None:
    graph = json.loads(json.dumps(GRAPH))
    graph["3"]["inputs"] |= {"sampler_name": "dpmpp_2m_sde", "scheduler": "karras"}
    assert read(png(tmp_path / "a.png", **{COMFYUI_KEY: json.dumps(graph)}))[0].scheduler == "dpm++-sde-karras"


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("comment", "a cat", "holds no settings; --from-png takes a PNG that altdiffusion, AUTOMATIC1111 or ComfyUI"),
        (COMFYUI_KEY, "{}", "no prompt and seed could be found"),
        (COMFYUI_KEY, "[1]", "no prompt and seed could be found"),
        (COMFYUI_KEY, "rubbish", "no prompt and seed could be found"),
        (WEBUI_KEY, "a cat\nSteps: many, Seed: 1", "are damaged (Steps is 'many')"),
        (WEBUI_KEY, "Steps: 20, Seed: 1", "have no prompt"),
        (SETTINGS_KEY, "", "damaged"),
        (SETTINGS_KEY, "{", "damaged"),
        (SETTINGS_KEY, "[]", "damaged"),
        (SETTINGS_KEY, '{"prompt": "猫"}', "damaged"),
        (SETTINGS_KEY, '{"batch_seeds": 3}', "damaged"),
        (SETTINGS_KEY, '{"prompt": "猫", "seed": 1, "batch_seeds": [1], "model": 3}', "damaged (model is 3)"),
    ],
)
def test_what_cannot_be_read_is_one_line(key: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        read(png(tmp_path / "a.png", **{key: text}))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(UserError, match="not a picture"):
        read(tmp_path / "a.png")
    with pytest.raises(UserError, match="cannot read"):
        read(tmp_path / "gone.png")


@pytest.mark.parametrize(
    "text", ["Negative prompt: blurry\nSteps: 9", "Steps: 9, Seed: 3", "a cat\nSteps: 9, Seed: many"]
)
def test_a_text_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UserError, match="the settings in the text"):
        settings_from_text(text, "emoji-m18", 2.0)


def test_a_text_is_read_as_a_picture_of_a_webui() -> None:
    text = "a (cat:1.2),\nby day\nNegative prompt: blurry\n"
    text += "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6, Seed: 7"
    settings, left = settings_from_text(text, "emoji-m18", 2.0)
    assert (settings.prompt, settings.negative_prompt) == ("a (cat:1.2),\nby day", "blurry")
    assert (settings.num_inference_steps, settings.guidance_scale, settings.seed) == (30, 6.0, 7)
    assert settings.scheduler == scheduler_name("DPM++ 2M Karras")
    assert left == []
