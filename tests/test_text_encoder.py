import copy

import pytest
import torch
from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series as theirs
from torch import nn
from transformers import AltCLIPTextConfig, AltCLIPTextModel, XLMRobertaTokenizer

from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation
from tests.small_models import SHAPES, prompts, small_config, small_encoder

TOLERANCE = 1e-5
LENGTHS = [[0], [1], [2], [77], [76], [5, 40, 13, 2], [0, 77, 30], list(range(0, 78, 7))]


def diffusers_twin(model: RobertaSeriesModelWithTransformation) -> nn.Module:
    config = theirs.RobertaSeriesConfig(**model.config.to_dict())
    twin = theirs.RobertaSeriesModelWithTransformation(config)
    missing, unexpected = twin.load_state_dict(model.state_dict(), strict=False)
    assert all("pooler" in name for name in missing)
    assert all("pre_LN" in name for name in unexpected)
    return twin.eval()


def transformers_twin(model: RobertaSeriesModelWithTransformation) -> AltCLIPTextModel:
    fields = AltCLIPTextConfig().to_dict().keys() - {"model_type"}
    config = AltCLIPTextConfig(**{k: v for k, v in model.config.to_dict().items() if k in fields})
    twin = AltCLIPTextModel(config)
    state = {
        name.replace("encoder.layer.", "encoder.layers."): tensor
        for name, tensor in model.state_dict().items()
        if "transformation_pre" not in name
    }
    twin.load_state_dict(state)
    return twin.eval()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
class TestAgreement:
    @torch.no_grad()
    def test_conditioning_equals_diffusers(self, shape: str, lengths: list[int], masked: bool) -> None:
        model = small_encoder(shape)
        ids, mask = prompts(lengths)
        mask = mask if masked else None
        expected = diffusers_twin(model)(ids, attention_mask=mask, return_dict=True).projection_state
        torch.testing.assert_close(model(ids, attention_mask=mask)[0], expected, atol=TOLERANCE, rtol=0)

    @torch.no_grad()
    def test_pooled_equals_transformers(self, shape: str, lengths: list[int], masked: bool) -> None:
        model = small_encoder(shape)
        ids, mask = prompts(lengths)
        mask = mask if masked else None
        expected = transformers_twin(model)(ids, attention_mask=mask).pooler_output
        actual = model(ids, attention_mask=mask).pooler_output
        torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


def padded_run(model: RobertaSeriesModelWithTransformation) -> RobertaSeriesModelWithTransformation:
    """The same weights, with every padding row computed."""
    model._columns_to_keep = lambda *_: None  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_padding_token_equals_all_of_them(shape: str, training: bool, masked: bool, attention: str) -> None:
    short = small_encoder(shape, attn_implementation=attention).train(training)
    whole = padded_run(copy.deepcopy(short))
    ids, mask = prompts([4, 31, 17, 2])
    outputs = [m(ids, mask if masked else None, output_hidden_states=True) for m in (short, whole)]
    for a, b in zip(outputs[0].to_tuple()[:3], outputs[1].to_tuple()[:3], strict=True):
        torch.testing.assert_close(a, b, atol=TOLERANCE, rtol=0)
    for a, b in zip(outputs[0].hidden_states, outputs[1].hidden_states, strict=True):
        torch.testing.assert_close(a, b, atol=TOLERANCE, rtol=0)

    weight = torch.randn_like(outputs[0].projection_state)
    for output in outputs:
        ((output.projection_state * weight).mean() + output.pooler_output.square().mean()).backward()
    for (name, a), b in zip(short.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=TOLERANCE, rtol=0, msg=name)


def test_padding_is_computed_when_it_may_differ() -> None:
    model = small_encoder("m9", hidden_dropout_prob=0.1)
    ids, mask = prompts([4, 31])
    assert model._columns_to_keep(ids, mask) == 32
    assert model.train()._columns_to_keep(ids, mask) is None, "dropout differs from row to row"
    model.eval()
    assert model._columns_to_keep(ids.flip(1), mask.flip(1)) is None, "padding on the left has other positions"
    assert model._columns_to_keep(ids, torch.ones_like(mask)) is None, "a mask that shows padding"
    assert model._columns_to_keep(*prompts([77, 3])) is None, "nothing to save"


@torch.no_grad()
def test_a_prompt_does_not_depend_on_its_batch() -> None:
    model = small_encoder("m18")
    ids, mask = prompts([4, 31, 77])
    together = model(ids, mask).projection_state
    alone = torch.cat([model(ids[i : i + 1], mask[i : i + 1]).projection_state for i in range(3)])
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_embeddings_in_place_of_ids() -> None:
    model = small_encoder("m9")
    ids, _ = prompts([77])
    embeds = model.get_input_embeddings()(ids)
    torch.testing.assert_close(model(inputs_embeds=embeds)[0], model(ids)[0], atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_hidden_states_and_attentions_on_request_only() -> None:
    model = small_encoder("m18", attn_implementation="eager")
    ids, mask = prompts([5, 9], width=20)
    plain = model(ids, mask)
    assert plain.hidden_states is None
    assert plain.attentions is None
    asked = model(ids, mask, output_hidden_states=True, output_attentions=True)
    assert len(asked.hidden_states) == model.config.num_hidden_layers + 1
    assert asked.attentions[0].shape == (2, 4, 20, 20)
    torch.testing.assert_close(asked.hidden_states[-1], asked.last_hidden_state)
    as_tuple = model(ids, mask, output_hidden_states=True, return_dict=False)
    torch.testing.assert_close(as_tuple[0], asked.projection_state, atol=TOLERANCE, rtol=0)
    assert isinstance(as_tuple[-1], tuple), "diffusers' clip_skip takes the last element"


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    plain, checkpointed = small_encoder("m9").train(), small_encoder("m9").train()
    checkpointed.gradient_checkpointing_enable()
    ids, mask = prompts([5, 9])
    for model in (plain, checkpointed):
        model(ids, mask).projection_state.square().mean().backward()
    for a, b in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_saved_equals_loaded(shape: str, tmp_path) -> None:
    model = small_encoder(shape)
    model.save_pretrained(tmp_path)
    loaded, info = RobertaSeriesModelWithTransformation.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids, mask = prompts([5, 9])
    for a, b in zip(model(ids, mask).to_tuple(), loaded(ids, mask).to_tuple(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0)


@torch.no_grad()
def test_pre_LN_is_optional_as_published(tmp_path, published) -> None:
    bare = small_encoder("m9", has_pre_LN=False)
    bare.save_pretrained(tmp_path)
    config = RobertaSeriesConfig.from_pretrained(tmp_path)
    config.has_pre_LN = True  # a published config does not say
    config.save_pretrained(tmp_path)
    loaded = RobertaSeriesModelWithTransformation.from_pretrained(tmp_path)
    assert loaded.pre_LN is None
    assert loaded.config.has_pre_LN is False
    ids, mask = prompts([5, 9])
    assert loaded(ids, mask).pooler_output is None
    torch.testing.assert_close(loaded(ids, mask)[0], bare(ids, mask)[0])

    m18 = RobertaSeriesModelWithTransformation.from_pretrained(published / "alt-diffusion-m18-tiny" / "text_encoder")
    assert m18.pre_LN is not None


@torch.no_grad()
def test_new_tokens(tmp_path) -> None:
    model = small_encoder("m9")
    ids, mask = prompts([5, 9])
    before = model(ids, mask)[0]
    model.resize_token_embeddings(125)
    assert model.config.vocab_size == 125
    torch.testing.assert_close(model(ids, mask)[0], before)
    ids[0, 1] = 124
    assert not torch.equal(model(ids, mask)[0][0], before[0])
    model.save_pretrained(tmp_path)
    assert RobertaSeriesModelWithTransformation.from_pretrained(tmp_path).get_input_embeddings().num_embeddings == 125


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    model = small_encoder("m18")
    ids, mask = prompts([5, 9])
    for given in (mask, None):
        expected = model.float()(ids, given)[0]
        actual = model.to(dtype)(ids, given)[0]
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.float(), expected, atol=0.1, rtol=0.1)


class TestBadInput:
    def test_too_many_tokens(self) -> None:
        with pytest.raises(ValueError, match="positions for 88: truncate the prompt"):
            small_encoder("m9")(torch.full((1, 89), 5))

    def test_neither_ids_nor_embeddings(self) -> None:
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            small_encoder("m9")()

    def test_both_ids_and_embeddings(self) -> None:
        with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
            small_encoder("m9")(torch.full((1, 3), 5), inputs_embeds=torch.zeros(1, 3, 32))


@pytest.mark.parametrize("m", ["m9", "m18"])
@torch.no_grad()
def test_published_conditioning(m: str, published, golden) -> None:
    folder = published / f"alt-diffusion-{m}-tiny"
    tokenizer = XLMRobertaTokenizer.from_pretrained(folder / "tokenizer")
    model = RobertaSeriesModelWithTransformation.from_pretrained(folder / "text_encoder")
    encoded = tokenizer(
        [str(prompt) for prompt in golden["prompts"]],
        padding="max_length",
        max_length=77,
        truncation=True,
        return_tensors="pt",
    )
    assert (encoded.input_ids.numpy() == golden["input_ids"]).all()
    assert (encoded.attention_mask.numpy() == golden["attention_mask"]).all()
    for name, mask in (("conditioning", encoded.attention_mask), ("conditioning_no_mask", None)):
        expected = torch.from_numpy(golden[f"{m}.{name}"])
        torch.testing.assert_close(model(encoded.input_ids, mask)[0], expected, atol=TOLERANCE, rtol=0)


def test_config_reads_and_writes_the_published_fields(published, tmp_path) -> None:
    config = RobertaSeriesConfig.from_pretrained(published / "alt-diffusion-m18-tiny" / "text_encoder")
    assert (config.model_type, config.project_dim, config.has_pre_transformation) == ("xlm-roberta", 64, True)
    assert config.use_attention_mask
    small_config("m18").save_pretrained(tmp_path)
    assert RobertaSeriesConfig.from_pretrained(tmp_path).has_pre_transformation


@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_clip_skip_counts_back_from_the_layer_that_conditions(shape: str) -> None:
    """As diffusers' pipelines read it: the last element of the outputs, from the end, projected."""
    model = small_encoder(shape)
    ids, mask = prompts([5, 77])
    outputs = model(ids, attention_mask=mask, output_hidden_states=True)
    skipped = [model.text_model.final_layer_norm(outputs[-1][-(skip + 1)]) for skip in (0, 1)]
    assert torch.equal(skipped[0], model(ids, attention_mask=mask)[0])
    assert not torch.allclose(skipped[1], skipped[0])
    last = -2 if shape == "m18" else -1
    torch.testing.assert_close(skipped[1], model.project(outputs.hidden_states[last - 1]))
    assert model(ids, attention_mask=mask).conditioning_states is None
