"""Prompts are encoded once, and again as soon as the text encoder is another."""

from collections.abc import Callable, Iterator

import pytest
import torch
from peft import LoraConfig

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.pipelines.alt_diffusion.prompt_cache import PromptCache


@pytest.fixture(params=["m9", "m18"])
def pipe(request: pytest.FixtureRequest, published) -> AltDiffusionPipeline:
    return AltDiffusionPipeline.from_pretrained(published / f"alt-diffusion-{request.param}-tiny", safety_checker=None)


@pytest.fixture
def batches(pipe: AltDiffusionPipeline) -> Iterator[list[int]]:
    """How many rows the text encoder was given, each time it ran."""
    seen: list[int] = []
    handle = pipe.text_encoder.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    yield seen
    handle.remove()


@torch.no_grad()
def encode(pipe: AltDiffusionPipeline, prompt: str | list[str] = "猫", **more: object) -> torch.Tensor:
    return torch.cat(pipe.encode_prompt(prompt, "cpu", 1, True, **more))


def test_a_prompt_and_the_empty_one_are_read_once(pipe, batches) -> None:
    first = encode(pipe)
    assert batches == [1, 1]
    assert torch.equal(encode(pipe), first)
    assert batches == [1, 1], "nothing was read again"
    encode(pipe, "狗")
    assert batches == [1, 1, 1], "the new prompt alone"
    encode(pipe, ["狗", "鸟", "鸟"])
    assert batches == [1, 1, 1, 1], "and an equal one once"


def test_what_is_there_does_not_change_what_is_new(pipe) -> None:
    alone = encode(pipe, "狗")
    pipe.set_prompt_cache()
    encode(pipe, "猫", negative_prompt="模糊")
    assert torch.equal(encode(pipe, "狗"), alone), "to the last bit: a picture can be drawn again"


@pytest.mark.parametrize(
    "change",
    [
        lambda pipe: pipe.text_encoder.get_input_embeddings().weight.data.mul_(1.5),
        lambda pipe: pipe.text_encoder.roberta.encoder.layer[1].attention.self.query.weight.mul_(1.5),
        lambda pipe: pipe.text_encoder.load_state_dict({k: v + 0.1 for k, v in pipe.text_encoder.state_dict().items()}),
        lambda pipe: pipe.text_encoder.double(),
        lambda pipe: pipe.text_encoder.add_adapter(LoraConfig(target_modules=["query"], init_lora_weights=False)),
    ],
    ids=["written around autograd", "written to", "loaded", "cast", "adapter"],
)
def test_another_state_of_the_encoder_reads_again(change: Callable[[AltDiffusionPipeline], object], pipe) -> None:
    before = encode(pipe)
    with torch.no_grad():
        change(pipe)
    changed = encode(pipe)
    pipe.set_prompt_cache(0)
    assert torch.equal(encode(pipe), changed)
    assert changed.dtype != before.dtype or not torch.allclose(changed, before)


def test_with_adapters_nothing_is_kept(pipe, batches) -> None:
    pipe.text_encoder.add_adapter(LoraConfig(target_modules=["query"], init_lora_weights=False))
    encode(pipe)
    encode(pipe)
    assert batches == [1, 1, 1, 1]


def test_nothing_is_kept_while_something_learns(pipe, batches) -> None:
    for _ in range(2):
        assert pipe.encode_prompt("猫", "cpu", 1, False)[0].requires_grad
    assert batches == [1, 1]


def test_ways_of_encoding_are_told_apart(pipe, batches) -> None:
    encode(pipe)
    encode(pipe, clip_skip=1)
    assert len(batches) == 3
    pipe.text_encoder.config.use_attention_mask = False
    encode(pipe)
    assert len(batches) == 5


def test_the_least_recently_used_goes_first() -> None:
    cache, encoder = PromptCache(most=2), torch.nn.Linear(2, 2).eval()
    with torch.no_grad():
        cache.keep(encoder, {"a": torch.zeros(1), "b": torch.zeros(1)})
        cache.get(encoder, ["a"])
        cache.keep(encoder, {"c": torch.zeros(1)})
        assert set(cache.get(encoder, ["a", "b", "c"])) == {"a", "c"}


def test_bad_sizes(pipe) -> None:
    with pytest.raises(ValueError, match="give 0 or more"):
        pipe.set_prompt_cache(-1)


def test_autocast_is_another_way_of_encoding(pipe, batches) -> None:
    plain = encode(pipe)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encode(pipe)
    assert len(batches) == 4
    assert not torch.equal(plain.float(), rounded.float())
    assert torch.equal(encode(pipe), plain)


def test_weights_that_are_offloaded_one_by_one_are_known_again(pipe, batches) -> None:
    from accelerate import cpu_offload

    first = encode(pipe)
    cpu_offload(pipe.text_encoder, execution_device="cpu")
    assert next(pipe.text_encoder.parameters()).is_meta
    assert torch.equal(encode(pipe), first)
    assert torch.equal(encode(pipe), first)
    assert batches == [1, 1, 1, 1], "read once more after the change, and then kept"
    with torch.no_grad():
        pipe.text_encoder.roberta.encoder.layer[0].output.dense._hf_hook.weights_map["weight"].mul_(2)
    assert not torch.equal(encode(pipe), first)
