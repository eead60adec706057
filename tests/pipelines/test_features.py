"""What Stable Diffusion's tools do, in every AltDiffusion pipeline, each seen to change what it should.

The ground is that of diffusers' own common pipeline checks. The text encoder and the tokenizer are the real ones, at
a small size, with the random weights of the published fixtures.
"""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.schedulers import KarrasDiffusionSchedulers
from peft import LoraConfig
from PIL import Image

import altdiffusion_clip
from tests.conftest import in_full

TASKS = ("", "Img2Img", "Inpaint", "ControlNet")
CLOSE = 1e-4
SIDE = 32
"""Pixels of height and width."""
Pipe = Any


class Bench:
    """One pipeline of one checkpoint, and the same call again and again."""

    def __init__(self, task: str, m: str, published: Path) -> None:
        self.task, self.m = task, m
        self.folder = published / f"alt-diffusion-{m}-tiny"
        self.ours = getattr(altdiffusion_clip, f"AltDiffusion{task}Pipeline")
        self.theirs = getattr(diffusers, f"StableDiffusion{task}Pipeline")
        self._loaded: Pipe = None

    def load(self, kind: type | None = None, **more: Any) -> Pipe:
        """A pipeline of its own for each test; a copy is quicker to have than the files are to read."""
        if kind is None and not more:
            self._loaded = self._loaded or self._read(self.ours)
            return copy.deepcopy(self._loaded)
        return self._read(kind or self.ours, **more)

    def _read(self, kind: type, **more: Any) -> Pipe:
        if self.task == "ControlNet":
            unet = diffusers.UNet2DConditionModel.from_pretrained(self.folder, subfolder="unet")
            torch.manual_seed(0)
            # three widths, because this autoencoder makes pictures smaller by four and not by eight
            controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16))
            more.setdefault("controlnet", controlnet)
        without = {} if "safety_checker" in more else {"safety_checker": None, "requires_safety_checker": False}
        pipe = kind.from_pretrained(self.folder, **without, **more)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def arguments(self) -> dict[str, Any]:
        gradient = np.linspace(0, 255, SIDE * SIDE * 3, dtype=np.uint8).reshape(SIDE, SIDE, 3)
        image = {"image": Image.fromarray(gradient)} if self.task else {}
        if self.task == "Inpaint":
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[:, SIDE // 2 :] = 255
            image["mask_image"] = Image.fromarray(mask)
        return image | ({} if self.task == "Img2Img" else {"height": SIDE, "width": SIDE})

    def draw(self, pipe: Pipe, prompt: Any = "雪山下的红色小屋", **more: Any) -> np.ndarray:
        settings = {"num_inference_steps": 4, "output_type": "np", "generator": torch.Generator().manual_seed(0)}
        return pipe(prompt, **{**self.arguments(), **settings, **more}).images


def random_ip_adapter(unet: diffusers.UNet2DConditionModel, width: int = 24) -> dict[str, dict[str, torch.Tensor]]:
    """An IP-Adapter in the layout of its published files, for pictures seen as vectors of a width."""
    generator = torch.Generator().manual_seed(0)
    cross = unet.config.cross_attention_dim
    weights = {}
    for number, name in enumerate(n for n in unet.attn_processors if n.endswith("attn2.processor")):
        hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for part in ("to_k_ip", "to_v_ip"):
            weights[f"{2 * number + 1}.{part}.weight"] = torch.randn(hidden, cross, generator=generator) / cross**0.5
    projection = {
        "proj.weight": torch.randn(4 * cross, width, generator=generator) / width**0.5,
        "proj.bias": torch.zeros(4 * cross),
        "norm.weight": torch.ones(cross),
        "norm.bias": torch.zeros(cross),
    }
    return {"image_proj": projection, "ip_adapter": weights}


@pytest.fixture(
    scope="module",
    params=[
        ("", "m9"),
        ("", "m18"),
        ("Inpaint", "m9"),
        *in_full(("Img2Img", "m9"), ("ControlNet", "m9"), *((task, "m18") for task in TASKS if task)),
    ],
    ids=lambda chosen: f"{chosen[0] or 'Text2Image'}-{chosen[1]}",
)
def bench(request: pytest.FixtureRequest, published: Path) -> Bench:
    """`make test` leaves some out: m18 differs in its text encoder alone, the tasks in what the UNet is given."""
    return Bench(*request.param, published)


@pytest.fixture(scope="module")
def base(bench: Bench) -> np.ndarray:
    return bench.draw(bench.load())


def close(one: np.ndarray, other: np.ndarray, tolerance: float = CLOSE) -> bool:
    return one.shape == other.shape and bool(np.isfinite(one).all()) and np.abs(one - other).max() <= tolerance


class TestTheSamePictures:
    """Ways of computing that must not change what is drawn."""

    def test_as_diffusers_own_class(self, bench: Bench, base: np.ndarray) -> None:
        assert close(bench.draw(bench.load(bench.theirs)), base, 1e-5)

    def test_saved_is_loaded(self, bench: Bench, base: np.ndarray, tmp_path: Path) -> None:
        bench.load().save_pretrained(tmp_path)
        kwargs = {"safety_checker": None, "requires_safety_checker": False}
        pipe = bench.ours.from_pretrained(tmp_path, **kwargs)
        pipe.set_progress_bar_config(disable=True)
        assert close(bench.draw(pipe), base, 1e-6)

    def test_from_pipe_both_ways(self, bench: Bench, base: np.ndarray) -> None:
        ours = bench.load()
        theirs = bench.theirs.from_pipe(ours)
        back = bench.ours.from_pipe(theirs)
        for pipe in (theirs, back):
            pipe.set_progress_bar_config(disable=True)
            assert pipe.text_encoder is ours.text_encoder
            assert close(bench.draw(pipe), base, 1e-5)

    def test_a_batch_is_its_single_pictures(self, bench: Bench) -> None:
        pipe = bench.load()
        prompts = ["猫", "a red house"]
        inputs = {key: [value] * 2 for key, value in bench.arguments().items() if key in ("image", "mask_image")}
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        together = bench.draw(pipe, prompts, generator=generators, **inputs)
        for i, prompt in enumerate(prompts):
            alone = bench.draw(pipe, prompt, generator=torch.Generator().manual_seed(i + 1))
            assert close(together[i : i + 1], alone)

    def test_several_pictures_of_a_prompt(self, bench: Bench) -> None:
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        pictures = bench.draw(bench.load(), num_images_per_prompt=2, generator=generators)
        assert pictures.shape[0] == 2
        assert not close(pictures[:1], pictures[1:])

    def test_a_tuple_holds_what_the_output_holds(self, bench: Bench, base: np.ndarray) -> None:
        settings = {"num_inference_steps": 4, "output_type": "np", "generator": torch.Generator().manual_seed(0)}
        images, _ = bench.load()("雪山下的红色小屋", return_dict=False, **bench.arguments(), **settings)
        assert close(images, base, 1e-6)

    def test_embeddings_in_place_of_prompts(self, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        positive, negative = pipe.encode_prompt("雪山下的红色小屋", "cpu", 1, True)
        given = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
        assert close(bench.draw(pipe, None, **given), base, 1e-6)

    @pytest.mark.parametrize(
        "switch",
        [
            lambda pipe: pipe.enable_attention_slicing(1),
            lambda pipe: pipe.vae.enable_slicing(),
            lambda pipe: pipe.unet.to(memory_format=torch.channels_last),
            lambda pipe: pipe.fuse_qkv_projections(),
            lambda pipe: pipe.unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor()),
            lambda pipe: pipe.text_encoder.set_attn_implementation("eager"),
        ],
        ids=["attention slicing", "vae slicing", "channels last", "fused projections", "plain attention", "eager text"],
    )
    def test_ways_of_computing(self, switch: Callable[[Pipe], object], bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        switch(pipe)
        assert close(bench.draw(pipe), base)

    def test_vae_tiling(self, bench: Bench) -> None:
        pipe = bench.load()
        pipe.vae.enable_tiling()
        assert pipe.vae.use_tiling
        assert np.isfinite(bench.draw(pipe)).all()
        pipe.vae.disable_tiling()
        assert not pipe.vae.use_tiling

    def test_group_offload(self, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        onto = torch.device("cpu")
        try:
            pipe.enable_group_offload(onload_device=onto, offload_device=onto, offload_type="leaf_level")
        except (RuntimeError, ValueError, NotImplementedError) as error:
            pytest.skip(f"group offloading does not run here: {error}")
        assert close(bench.draw(pipe), base)

    @pytest.mark.parametrize("kind", ["model", "sequential"])
    def test_offloading_from_a_gpu(self, kind: str, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        if not torch.cuda.is_available():
            with pytest.raises(RuntimeError, match="accelerator"):  # and no picture from half of a pipeline
                getattr(pipe, f"enable_{kind}_cpu_offload")()
            return
        getattr(pipe, f"enable_{kind}_cpu_offload")()
        assert close(bench.draw(pipe), base, 1e-2)

    def test_xformers(self, bench: Bench, base: np.ndarray) -> None:
        pytest.importorskip("xformers")
        pipe = bench.load()
        pipe.enable_xformers_memory_efficient_attention()
        assert close(bench.draw(pipe), base)

    def test_the_safety_checker_sees_each_picture(self, bench: Bench) -> None:
        checker = StableDiffusionSafetyChecker.from_pretrained(bench.folder, subfolder="safety_checker")
        seen = []
        for kind in (bench.ours, bench.theirs):
            pipe = bench.load(kind, safety_checker=checker)
            settings = {"num_inference_steps": 2, "output_type": "np", "generator": torch.Generator().manual_seed(0)}
            seen.append(pipe("猫", **bench.arguments(), **settings))
        assert len(seen[0].nsfw_content_detected) == 1
        assert seen[0].nsfw_content_detected == seen[1].nsfw_content_detected
        assert close(seen[0].images, seen[1].images, 1e-5)

    def test_half_precision(self, bench: Bench) -> None:
        # Not as in float32: before torch 2.12 a seed gives another noise in bfloat16.
        ours, theirs = (bench.load(kind).to(torch.bfloat16) for kind in (bench.ours, bench.theirs))
        assert ours.text_encoder.dtype == torch.bfloat16
        assert close(bench.draw(ours), bench.draw(theirs), 0.01)


class TestTypes:
    """What goes in and comes out may be of several kinds."""

    def test_kinds_of_output(self, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        tensors = bench.draw(pipe, output_type="pt")
        assert close(tensors.permute(0, 2, 3, 1).numpy(), base, 1e-6)
        images = bench.draw(pipe, output_type="pil")
        assert np.abs(np.asarray(images[0]).astype(float) - 255 * base[0]).max() < 1
        latents = bench.draw(pipe, output_type="latent")
        assert latents.shape == (1, 4, SIDE // 4, SIDE // 4)

    def test_kinds_of_picture(self, bench: Bench, base: np.ndarray) -> None:
        if not bench.task:
            pytest.skip("takes no picture")
        pipe = bench.load()
        array = np.asarray(bench.arguments()["image"]).astype(np.float32)[None] / 255
        for image in (array, torch.from_numpy(array).permute(0, 3, 1, 2)):
            assert close(bench.draw(pipe, image=image), base, 1e-3)

    def test_latents_that_are_given(self, bench: Bench, base: np.ndarray) -> None:
        if bench.task in ("Img2Img", "Inpaint"):
            pytest.skip("begins with the latents of a picture")
        latents = torch.randn(1, 4, SIDE // 4, SIDE // 4, generator=torch.Generator().manual_seed(0))
        assert close(bench.draw(bench.load(), latents=latents), base, 1e-6)

    def test_components_that_are_left_out(self, bench: Bench, tmp_path: Path) -> None:
        pipe = bench.load(feature_extractor=None)
        pipe.save_pretrained(tmp_path)
        back = bench.ours.from_pretrained(tmp_path)
        for name in ("safety_checker", "feature_extractor", "image_encoder"):
            assert getattr(back, name) is None, name

    @pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
    def test_half_of_the_weights_is_saved_and_loaded(self, half: torch.dtype, bench: Bench, tmp_path: Path) -> None:
        bench.load().to(half).save_pretrained(tmp_path)
        back = bench.ours.from_pretrained(tmp_path, dtype=half)
        assert {back.unet.dtype, back.vae.dtype, back.text_encoder.dtype} == {half}
        expected = bench.load().to(half).text_encoder.state_dict()
        for name, tensor in back.text_encoder.state_dict().items():
            assert torch.equal(tensor, expected[name]), name

    def test_every_scheduler_of_stable_diffusion(self, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        config = pipe.scheduler.config
        for each in KarrasDiffusionSchedulers:
            try:
                pipe.scheduler = getattr(diffusers, each.name).from_config(config)
                picture = bench.draw(pipe, num_inference_steps=5)
            except ImportError:
                continue  # it needs scipy or torchsde
            assert picture.shape == base.shape, each.name


class TestOtherPictures:
    """What asks for other pictures, and gets them."""

    def test_the_prompt_the_negative_and_the_guidance(self, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        others = [
            bench.draw(pipe, "狗"),
            bench.draw(pipe, negative_prompt="模糊"),
            bench.draw(pipe, guidance_scale=2.0),
            bench.draw(pipe, guidance_scale=1.0),
            bench.draw(pipe, "(雪山:1.5)下的红色小屋"),
        ]
        for i, picture in enumerate(others):
            assert np.isfinite(picture).all()
            assert not close(picture, base, 1e-5), i

    def test_clip_skip(self, bench: Bench, base: np.ndarray) -> None:
        for pipe in (bench.load(), bench.load(bench.theirs)):
            assert close(bench.draw(pipe, clip_skip=0), base, 1e-5)
            assert not close(bench.draw(pipe, clip_skip=1), base, 1e-5)
        skips = [bench.draw(bench.load(kind), clip_skip=2) for kind in (bench.ours, bench.theirs)]
        assert close(skips[0], skips[1], 1e-5)

    def test_freeu(self, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
        assert all(getattr(pipe.unet.up_blocks[0], name) is not None for name in ("s1", "s2", "b1", "b2"))
        assert np.isfinite(bench.draw(pipe)).all()
        pipe.disable_freeu()
        assert close(bench.draw(pipe), base, 1e-6)

    @pytest.mark.parametrize(
        "name",
        [
            "DDIMScheduler",
            "DPMSolverMultistepScheduler",
            "UniPCMultistepScheduler",
            "EulerDiscreteScheduler",
            "EulerAncestralDiscreteScheduler",
            "HeunDiscreteScheduler",
            "LCMScheduler",
            "TCDScheduler",
        ],
    )
    def test_schedulers(self, name: str, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
        picture = bench.draw(pipe)
        assert picture.shape == base.shape
        assert np.isfinite(picture).all()
        assert not close(picture, base, 1e-5)

    def test_eta_and_guidance_rescale(self, bench: Bench) -> None:
        pipe = bench.load()
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        plain = bench.draw(pipe)
        assert not close(bench.draw(pipe, eta=1.0), plain, 1e-5)
        if bench.task == "":
            assert not close(bench.draw(pipe, guidance_rescale=0.7), plain, 1e-5)

    def test_lora_on_both(self, bench: Bench, base: np.ndarray) -> None:
        torch.manual_seed(0)
        pipe = bench.load()
        on_text, on_unet = ["query", "key", "value"], ["to_q", "to_k", "to_v"]
        pipe.text_encoder.add_adapter(LoraConfig(r=4, target_modules=on_text, init_lora_weights=False), "both")
        pipe.unet.add_adapter(LoraConfig(r=4, target_modules=on_unet, init_lora_weights=False), "both")
        pipe.set_adapters("both", 0.0)
        assert close(bench.draw(pipe), base, 1e-5)
        pipe.set_adapters("both", 1.0)
        whole = bench.draw(pipe)
        assert not close(whole, base, 1e-3)
        half = bench.draw(pipe, cross_attention_kwargs={"scale": 0.5})
        assert not close(half, base, 1e-4)
        assert not close(half, whole, 1e-4)

    def test_ip_adapter(self, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        pipe.unet._load_ip_adapter_weights([random_ip_adapter(pipe.unet)])
        seen = torch.randn(1, 1, 24, generator=torch.Generator().manual_seed(0))
        given = {"ip_adapter_image_embeds": [torch.cat([torch.zeros_like(seen), seen])]}
        pipe.set_ip_adapter_scale(0.0)
        assert close(bench.draw(pipe, **given), base)
        pipe.set_ip_adapter_scale(1.0)
        assert not close(bench.draw(pipe, **given), base, 1e-5)

    def test_textual_inversion_of_several_vectors(self, bench: Bench, base: np.ndarray) -> None:
        vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
        pictures = []
        for kind, learned in ((bench.ours, vectors), (bench.theirs, vectors), (bench.ours, vectors[:1])):
            pipe = bench.load(kind)
            pipe.load_textual_inversion({"<ding>": learned})
            assert torch.equal(pipe.text_encoder.get_input_embeddings().weight[-len(learned) :], learned)
            pictures.append(bench.draw(pipe, "一个 <ding>"))
            assert close(bench.draw(pipe), base, 1e-5)
        several, theirs, one = pictures
        assert close(several, theirs, 1e-5)
        assert not close(several, one, 1e-5)
        pipe.unload_textual_inversion("<ding>")
        assert pipe.tokenizer.convert_tokens_to_ids("<ding>") == pipe.tokenizer.unk_token_id

    @pytest.mark.parametrize("m", ["m9", "m18"])
    def test_textual_inversion_is_trained(self, m: str, published: Path) -> None:
        """A new word learns the conditioning of another: only its own row changes."""
        bench = Bench("", m, published)
        pipe = bench.load()
        pipe.load_textual_inversion({"<ding>": torch.zeros(1, 32)})
        table = pipe.text_encoder.get_input_embeddings().weight
        before = table.detach().clone()
        pipe.text_encoder.requires_grad_(False)
        table.requires_grad_(True)
        target = pipe.encode_prompt("猫", "cpu", 1, False)[0].detach()
        optimizer = torch.optim.Adam([table], lr=0.05)
        losses = []
        for _ in range(40):
            loss = (pipe.encode_prompt("<ding>", "cpu", 1, False)[0] - target).square().mean()
            loss.backward()
            table.grad[:-1] = 0  # as diffusers' own script keeps the other words
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0]
        assert torch.equal(table[:-1], before[:-1])


class TestWatchingAndStopping:
    def test_callbacks_see_each_step_and_may_change_it(self, bench: Bench, base: np.ndarray) -> None:
        pipe = bench.load()
        seen: list[int] = []

        def watch(pipe: Pipe, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            seen.append(step)
            assert tensors.keys() == {"latents", "prompt_embeds"}
            assert tensors["prompt_embeds"].shape[1] == 77
            return tensors

        inputs = ["latents", "prompt_embeds"]
        picture = bench.draw(pipe, callback_on_step_end=watch, callback_on_step_end_tensor_inputs=inputs)
        assert close(picture, base, 1e-6)
        assert seen == list(range(len(seen)))
        assert len(seen) >= 3

        def blank(pipe: Pipe, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"latents": torch.zeros_like(tensors["latents"])}

        assert not close(bench.draw(pipe, callback_on_step_end=blank), base, 1e-5)

    def test_interrupts(self, bench: Bench) -> None:
        pipe = bench.load()
        seen: list[int] = []

        def stop(pipe: Pipe, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            seen.append(step)
            pipe._interrupt = True
            return tensors

        bench.draw(pipe, callback_on_step_end=stop)
        assert seen == [0]


class TestWrongUse:
    """The same exceptions as diffusers' own classes raise."""

    @pytest.mark.parametrize(
        "wrong",
        [
            {"prompt": ["猫", "狗"], "negative_prompt": ["模糊"]},
            {"prompt": "猫", "negative_prompt": ["模糊"]},
            {"prompt": None},
            {"prompt": 7},
            {"callback_on_step_end_tensor_inputs": ["nonsense"]},
            {"strength": 2.0},
            {"height": SIDE - 1, "width": SIDE},
        ],
        ids=str,
    )
    def test_it_is_refused_alike(self, wrong: dict[str, Any], bench: Bench) -> None:
        if "strength" in wrong and bench.task not in ("Img2Img", "Inpaint"):
            pytest.skip("there is no strength")
        if "height" in wrong and bench.task in ("Img2Img", "ControlNet"):
            pytest.skip("the size is that of the picture")
        messages = []
        for kind in (bench.ours, bench.theirs):
            pipe = bench.load(kind)
            with pytest.raises((ValueError, TypeError)) as caught:
                bench.draw(pipe, **{"prompt": "猫", **wrong})
            messages.append((type(caught.value), str(caught.value)))
        assert messages[0] == messages[1]
        assert messages[0][1]

    def test_pictures_of_other_modes_and_sizes(self, bench: Bench) -> None:
        if bench.task != "Img2Img":
            pytest.skip("takes no picture, or one of a stated size")
        pipe = bench.load()
        other = bench.load(bench.theirs)
        for mode in ("RGB", "L", "RGBA", "P"):
            image = Image.new(mode, (SIDE, SIDE), 128 if mode in "LP" else "red")
            outcomes = []
            for each in (pipe, other):
                try:
                    outcomes.append(bench.draw(each, image=image))
                except (ValueError, RuntimeError) as error:
                    outcomes.append(np.frombuffer(f"{type(error).__name__}: {error}".encode(), np.uint8) / 255)
            assert close(outcomes[0], outcomes[1], 1e-5), mode
        assert bench.draw(pipe, image=Image.new("RGB", (50, 70), "red")).shape[1:3] == (68, 48)

    def test_a_scheduler_that_nobody_knows(self, bench: Bench, tmp_path: Path) -> None:
        folder = tmp_path / "model"
        shutil.copytree(bench.folder, folder)
        index = folder / "model_index.json"
        index.write_text(index.read_text().replace("PNDMScheduler", "GuessworkScheduler"))
        errors = []
        for kind in (bench.ours, bench.theirs):
            more = {"controlnet": None} if bench.task == "ControlNet" else {}
            with pytest.raises((AttributeError, ValueError), match="GuessworkScheduler") as caught:
                kind.from_pretrained(folder, **more)
            errors.append(type(caught.value))
        assert errors[0] is errors[1]

    def test_a_strength_that_leaves_no_step(self, bench: Bench) -> None:
        if bench.task not in ("Img2Img", "Inpaint"):
            pytest.skip("there is no strength")
        pipe = bench.load()
        for strength in (0.0, 0.01):
            with pytest.raises(ValueError, match=r"strength.*steps?"):  # diffusers: torch's RuntimeError
                bench.draw(pipe, strength=strength)

    def test_latents_that_are_no_numbers(self, bench: Bench) -> None:
        pipe = bench.load()

        def spoil(pipe: Pipe, step: int, timestep: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"latents": tensors["latents"] * float("nan")}

        assert not np.isfinite(bench.draw(pipe, callback_on_step_end=spoil)).all()


@pytest.mark.full
def test_torch_compile(published: Path) -> None:
    bench = Bench("", "m9", published)
    pipe = bench.load()
    expected = bench.draw(pipe)
    pipe.text_encoder = torch.compile(pipe.text_encoder, backend="aot_eager")
    pipe.unet = torch.compile(pipe.unet, backend="aot_eager")
    assert close(bench.draw(pipe), expected)
