import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AltCLIPModel

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
from tests.pictures import held_out_pictures

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def scorer() -> AltCLIPScorer:
    return AltCLIPScorer.from_pretrained("emoji-m18").eval()


@pytest.fixture(scope="module")
def cats_and_others() -> list[Path]:
    """Four cats at places 10 to 13."""
    paths = [picture.path for picture in held_out_pictures()]
    return [*paths[40:50], *paths[:4], *paths[60:70]]


class TestAgainstTheReferences:
    @pytest.mark.parametrize("m", ["m2", "m9", "m18"])
    @torch.no_grad()
    def test_golden_similarities(self, m: str, published: Path, golden) -> None:
        scorer = AltCLIPScorer.from_pretrained(published / f"alt-clip-{m}-tiny").eval()
        texts = [str(prompt) for prompt in golden["prompts"][:10]]
        image = published / "init.png"
        for name, ours in (
            ("text_embeds", scorer.encode_texts(texts)),
            ("image_embeds", scorer.encode_images(image)[0]),
        ):
            torch.testing.assert_close(ours, torch.from_numpy(golden[f"altclip.{m}.{name}"]), atol=TOLERANCE, rtol=0)
        logits = scorer.logit_scale.exp() * scorer.similarity(texts, image).T
        expected = torch.from_numpy(golden[f"altclip.{m}.logits_per_image"])
        torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)

    @pytest.mark.parametrize("m", ["m9", "m18"])
    @torch.no_grad()
    def test_what_we_save_transformers_loads_and_the_other_way_round(self, m: str, published: Path, tmp_path) -> None:
        original = AltCLIPScorer.from_pretrained(published / f"alt-clip-{m}-tiny")
        original.save_pretrained(tmp_path / "ours")
        theirs, info = AltCLIPModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        theirs.save_pretrained(tmp_path / "theirs")
        shutil.copytree(
            tmp_path / "ours",
            tmp_path / "theirs",
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("model.safetensors", "config.json"),
        )
        back, info = AltCLIPScorer.from_pretrained(tmp_path / "theirs", output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]

        tokens = original.processor.tokenizer(["苹果", "a dog"], padding=True, return_tensors="pt")
        pixels = original.processor.image_processor(
            Image.open(published / "init.png"), return_tensors="pt"
        ).pixel_values
        expected = theirs(tokens.input_ids, pixels, tokens.attention_mask).logits_per_image
        for scorer in (original, back):
            actual = scorer(tokens.input_ids, pixels, tokens.attention_mask)[0]
            torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


class TestSharedBody:
    @pytest.mark.parametrize("m", ["m9", "m18"])
    @torch.no_grad()
    def test_one_text_encoder_in_memory(self, m: str, published: Path, golden) -> None:
        pipe = AltDiffusionPipeline.from_pretrained(published / f"alt-diffusion-{m}-tiny")
        before = {name: tensor.clone() for name, tensor in pipe.text_encoder.state_dict().items()}
        scorer = AltCLIPScorer.from_pipeline(pipe, published / f"alt-clip-{m}-tiny")
        ours, theirs = dict(scorer.text_model.named_parameters()), dict(pipe.text_encoder.named_parameters())
        assert ours.keys() == theirs.keys()
        for name, parameter in ours.items():
            assert parameter.data_ptr() == theirs[name].data_ptr(), name
        for name, tensor in before.items():
            assert torch.equal(tensor, pipe.text_encoder.state_dict()[name]), name
        texts = [str(prompt) for prompt in golden["prompts"][:10]]
        logits = scorer.logit_scale.exp() * scorer.similarity(texts, published / "init.png").T
        expected = torch.from_numpy(golden[f"altclip.{m}.logits_per_image"])
        torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)

    def test_a_shared_scorer_can_be_saved_for_transformers(self, published: Path, tmp_path: Path) -> None:
        pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m18-tiny")
        AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m18-tiny").save_pretrained(tmp_path)
        _, info = AltCLIPModel.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]

    def test_the_head_follows_when_the_pipeline_is_converted(self) -> None:
        pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
        scorer = AltCLIPScorer.from_pipeline(pipe)
        texts, pictures = ["猫", "a dog"], [picture.path for picture in held_out_pictures()[:8]]
        before = scorer.similarity(texts, pictures)
        pipe.to(torch.bfloat16)
        torch.testing.assert_close(scorer.similarity(texts, pictures), before, atol=0.01, rtol=0)
        assert scorer.vision_model.dtype == scorer.text_projection.weight.dtype == torch.bfloat16
        assert scorer.logit_scale.dtype == torch.float32

    def test_a_head_in_half_precision_sees_pictures_in_the_precision_of_its_body(self) -> None:
        pictures = [picture.path for picture in held_out_pictures()[:8]]
        shared = AltCLIPScorer.from_pipeline(AltDiffusionPipeline.from_pretrained("emoji-m18"))
        assert shared.logit_scale.dtype == torch.float32
        alone = AltCLIPScorer.from_pretrained("emoji-m18")
        assert torch.equal(shared.encode_images(pictures)[0], alone.encode_images(pictures)[0])

    def test_a_head_that_was_converted_alone_stays_as_it_is(self) -> None:
        scorer = AltCLIPScorer.from_pipeline(AltDiffusionPipeline.from_pretrained("emoji-m18"))
        scorer.vision_model.bfloat16()
        scorer.visual_projection.bfloat16()
        scorer.similarity("猫", held_out_pictures()[0].path)
        assert scorer.vision_model.dtype == torch.bfloat16

    def test_another_tower_is_refused_by_name(self, published: Path, caplog) -> None:
        pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny")
        with pytest.raises(ValueError, match=r"roberta\.embeddings\.word_embeddings\.weight differs"):
            AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m2-tiny")
        with caplog.at_level(logging.WARNING):
            AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m2-tiny", allow_other_tower=True)
        assert "word_embeddings.weight differs" in caplog.text

    def test_a_tower_with_fewer_layers_is_refused(self, published: Path) -> None:
        pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny")
        layers = pipe.text_encoder.roberta.encoder.layer
        layers.append(layers[-1])
        with pytest.raises(ValueError, match=r"layer\.5\.attention.* differs"):
            AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m9-tiny")

    def test_another_encoder_class_is_refused(self, published: Path) -> None:
        pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny")
        pipe.text_encoder = torch.nn.Linear(1, 1)
        with pytest.raises(TypeError, match="Linear"):
            AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m9-tiny")

    def test_emoji_m18_brings_its_head(self) -> None:
        pipe = AltDiffusionPipeline.from_pretrained("emoji-m18")
        scorer = AltCLIPScorer.from_pipeline(pipe)
        assert scorer.text_model is pipe.text_encoder


class TestScores:
    def test_similarity_is_the_cosine_of_every_pair(self, scorer: AltCLIPScorer, cats_and_others) -> None:
        texts = ["猫", "a dog"]
        similarity = scorer.similarity(texts, cats_and_others, batch_size=7)
        assert similarity.shape == (2, len(cats_and_others))
        assert similarity.abs().max() <= 1 + 1e-6
        pairs = scorer.score(["猫"] * len(cats_and_others), cats_and_others)
        torch.testing.assert_close(similarity[0], pairs.cosine, atol=1e-6, rtol=0)
        torch.testing.assert_close(pairs.clip_score, 100 * pairs.cosine.clamp(min=0))

    def test_batches_do_not_change_it(self, scorer: AltCLIPScorer, cats_and_others) -> None:
        one, many = (scorer.similarity("猫", cats_and_others, batch_size=size) for size in (1, 64))
        torch.testing.assert_close(one, many, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("prompt", ["cat", "猫", "кошка", "ネコ", "고양이", "قطة", "gatto"])
    def test_cats_come_first(self, prompt: str, scorer: AltCLIPScorer, cats_and_others) -> None:
        ranking = scorer.rank(prompt, cats_and_others)
        assert {image.index for image in ranking[:4]} == {10, 11, 12, 13}
        assert [image.rank for image in ranking] == list(range(1, len(cats_and_others) + 1))
        assert sorted((image.cosine for image in ranking), reverse=True) == [image.cosine for image in ranking]
        assert sum(image.probability for image in ranking) == pytest.approx(1, abs=1e-4)

    def test_every_kind_of_picture(self, scorer: AltCLIPScorer, cats_and_others) -> None:
        path = cats_and_others[0]
        image = Image.open(path).convert("RGB")
        array = np.asarray(image)
        kinds = [path, str(path), image, array, torch.from_numpy(array.copy()).permute(2, 0, 1) / 255]
        similarity = scorer.similarity("猫", kinds)
        assert (similarity - similarity[0, 0]).abs().max() < 1e-5
        batch = torch.stack([kinds[-1], kinds[-1]])
        assert scorer.similarity("猫", batch).shape == (1, 2)

    def test_one_text_with_one_picture(self, scorer: AltCLIPScorer, cats_and_others) -> None:
        assert scorer.score("猫", cats_and_others[0]).cosine.shape == (1,)
        assert scorer.similarity("猫", cats_and_others[0]).shape == (1, 1)

    def test_broken_pictures_are_named_and_skipped(
        self, scorer: AltCLIPScorer, cats_and_others, tmp_path, caplog
    ) -> None:
        bad = tmp_path / "bad.png"
        bad.write_bytes(b"no picture")
        mixed = [cats_and_others[0], bad, cats_and_others[10]]
        with caplog.at_level(logging.WARNING):
            similarity = scorer.similarity("猫", mixed)
        assert similarity.isnan().tolist() == [[False, True, False]]
        assert str(bad) in caplog.text
        ranking = scorer.rank("猫", mixed)
        assert [image.index for image in ranking] == [2, 0]
        assert [(b.index, b.name) for b in ranking.broken] == [(1, str(bad))]
        assert sum(image.probability for image in ranking) == pytest.approx(1, abs=1e-4)

    def test_all_broken_and_none(self, scorer: AltCLIPScorer, tmp_path) -> None:
        ranking = scorer.rank("猫", [tmp_path / "none.png"])
        assert len(ranking) == 0
        assert len(ranking.broken) == 1
        assert len(scorer.rank("猫", [])) == 0
        assert scorer.similarity([], []).shape == (0, 0)

    def test_texts_and_pictures_must_pair(self, scorer: AltCLIPScorer, cats_and_others) -> None:
        with pytest.raises(ValueError, match="2 texts for 3 images"):
            scorer.score(["a", "b"], cats_and_others[:3])

    def test_a_long_text_is_cut_with_a_warning(self, scorer: AltCLIPScorer, cats_and_others, caplog) -> None:
        with caplog.at_level(logging.WARNING):
            scorer.similarity("a cat " * 100, cats_and_others[0])
        assert "cut" in caplog.text

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_any_float_dtype(self, dtype: torch.dtype, cats_and_others) -> None:
        exact = AltCLIPScorer.from_pretrained("emoji-m18").eval()
        expected = exact.similarity("猫", cats_and_others)
        actual = exact.to(dtype).similarity("猫", cats_and_others)
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, expected, atol=0.03, rtol=0)

    def test_a_scorer_without_a_processor_says_so(self, scorer: AltCLIPScorer) -> None:
        with pytest.raises(ValueError, match="no processor"):
            AltCLIPScorer(scorer.config).encode_texts("猫")


def test_gradients_reach_the_shared_body(scorer: AltCLIPScorer) -> None:
    features = scorer.get_text_features(torch.tensor([[0, 9, 2]]))
    assert features.requires_grad


def test_a_model_of_nans_ranks_nothing(published: Path) -> None:
    scorer = AltCLIPScorer.from_pretrained(published / "alt-clip-m9-tiny")
    with torch.no_grad():
        scorer.text_projection.weight[0, 0] = float("nan")
    ranking = scorer.rank("猫", [published / "init.png", published / "nowhere.png"])
    assert len(ranking) == 0
    assert [image.reason for image in ranking.broken] == ["the score is not a number", "no such file"]


def test_pictures_come_from_any_iterable(published: Path) -> None:
    scorer = AltCLIPScorer.from_pretrained(published / "alt-clip-m9-tiny")
    paths = [published / "init.png"] * 2
    expected = [image.cosine for image in scorer.rank("猫", paths)]
    for images in ((path for path in paths), iter(paths), dict.fromkeys(range(2), paths[0]).values()):
        assert [image.cosine for image in scorer.rank("猫", images)] == expected
    assert len(scorer.rank("猫", paths[0])) == len(scorer.rank("猫", str(paths[0]))) == 1


def test_scoring_leaves_weights_that_can_be_trained(published: Path) -> None:
    scorer = AltCLIPScorer.from_pretrained(published / "alt-clip-m9-tiny")
    with torch.inference_mode():
        scorer.rank("猫", published / "init.png")
    embeds = scorer.encode_texts(["猫"])
    assert not embeds.is_inference()
    scorer.get_text_features(torch.tensor([[0, 5, 2]])).sum().backward()


def test_the_head_that_follows_in_inference_mode_can_be_trained(published: Path) -> None:
    from altdiffusion_clip import AltDiffusionPipeline

    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny")
    scorer = AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m9-tiny")
    pipe.to(torch.bfloat16)
    with torch.inference_mode():
        scorer.rank("猫", published / "init.png")
    assert not any(parameter.is_inference() for parameter in scorer.parameters())


@pytest.mark.parametrize("m", ["m2", "m9", "m18"])
@torch.no_grad()
def test_forward_gives_all_that_transformers_does(m: str, published: Path) -> None:
    from transformers import AltCLIPModel

    folder = published / f"alt-clip-{m}-tiny"
    scorer, plain = AltCLIPScorer.from_pretrained(folder), AltCLIPModel.from_pretrained(folder).eval()
    side = scorer.config.vision_config.image_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": torch.tensor([[0, 5, 6, 2], [0, 7, 2, 1]]), "pixel_values": pixels}
    inputs["attention_mask"] = (inputs["input_ids"] != 1).long()
    ours, theirs = (model(**inputs, return_loss=True, output_hidden_states=True) for model in (scorer, plain))
    for name in ("loss", "logits_per_image", "logits_per_text", "text_embeds", "image_embeds"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=1e-5, rtol=0)
    for tower in ("text_model_output", "vision_model_output"):
        mine, other = getattr(ours, tower), getattr(theirs, tower)
        torch.testing.assert_close(mine.pooler_output, other.pooler_output, atol=1e-5, rtol=0)
        kept = inputs["attention_mask"].bool() if tower == "text_model_output" else ...
        torch.testing.assert_close(mine.last_hidden_state[kept], other.last_hidden_state[kept], atol=1e-5, rtol=0)
        assert len(mine.hidden_states) == len(other.hidden_states)
    as_tuple = scorer(**inputs, return_dict=False)
    torch.testing.assert_close(as_tuple[0], ours.logits_per_image)


def test_the_attention_that_is_asked_for_reaches_both_towers(published: Path) -> None:
    scorer = AltCLIPScorer.from_pretrained(published / "alt-clip-m9-tiny", attn_implementation="eager")
    assert scorer.vision_model.config._attn_implementation == "eager"
    assert scorer.text_model.config._attn_implementation == "eager"
    assert scorer.text_model.roberta.config._attn_implementation == "eager"
