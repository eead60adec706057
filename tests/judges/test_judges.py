"""Each judge against its reference implementation, on tiny random checkpoints in the published layouts."""

import json
import logging
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AltCLIPModel,
    AutoImageProcessor,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    ChineseCLIPModel,
    CLIPModel,
    CLIPVisionModel,
    Siglip2Model,
    SiglipModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.checkpoints.model_ids import emoji_m18_folder
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.names import load_judge
from tests.judges.blip import image_reward
from tests.judges.checkpoints import (
    TOWER,
    bert_tokenizer,
    clip_processor,
    clip_tokenizer,
    write_chinese_clip,
    write_clip,
    write_image_reward,
    write_siglip,
)
from tests.pictures import held_out_pictures

TEXTS = ["a cat", "蓝色背景上的猫", "a picture of a very small green turtle on a red background", "x"]
PICTURES = [Image.open(picture.path).convert("RGB") for picture in held_out_pictures()[:12:4]]


def unit(features: Tensor) -> Tensor:
    return F.normalize(features, dim=-1)


def assert_same(judge, texts: Tensor, images: Tensor) -> None:
    torch.testing.assert_close(judge.text_features(TEXTS), unit(texts), atol=1e-5, rtol=0)
    inputs = [judge.preprocess(picture) for picture in PICTURES]
    torch.testing.assert_close(Bench.of(judge).encoder.pictures(inputs), unit(images), atol=1e-5, rtol=0)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """OpenAI CLIP's layout."""
    return write_clip(tmp_path / "clip")


@torch.no_grad()
def test_altclip_against_transformers(tmp_path: Path) -> None:
    AltCLIPScorer.from_pretrained("emoji-m18").save_pretrained(tmp_path)
    theirs = AltCLIPModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    judge = load_judge("emoji-m18")
    encoded = judge.tokenizer(TEXTS, padding=True, return_tensors="pt")
    pixels = judge.preprocess.processor(PICTURES, return_tensors="pt").pixel_values
    assert_same(
        judge,
        theirs.get_text_features(encoded.input_ids, encoded.attention_mask).pooler_output,
        theirs.get_image_features(pixels).pooler_output,
    )
    assert judge.logit_scale == pytest.approx(theirs.logit_scale.exp().item())


@torch.no_grad()
def test_clip_against_transformers(clip: Path) -> None:
    theirs = CLIPModel.from_pretrained(clip).eval()
    encoded = clip_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    pixels = clip_processor()(PICTURES, return_tensors="pt").pixel_values
    assert_same(
        load_judge(str(clip)),
        theirs.get_text_features(**encoded).pooler_output,
        theirs.get_image_features(pixels).pooler_output,
    )


@torch.no_grad()
@pytest.mark.parametrize("width", [32, 64, 96], ids=["base", "large", "huge"])
def test_chinese_clip_against_transformers(tmp_path: Path, width: int) -> None:
    write_chinese_clip(tmp_path, width)
    tokenizer = bert_tokenizer(tmp_path)
    theirs = ChineseCLIPModel.from_pretrained(tmp_path).eval()
    encoded = tokenizer(TEXTS, padding=True, truncation=True, max_length=52, return_tensors="pt")
    pixels = clip_processor()(PICTURES, return_tensors="pt").pixel_values
    assert_same(
        load_judge(str(tmp_path)),
        theirs.get_text_features(**encoded).pooler_output,
        theirs.get_image_features(pixels).pooler_output,
    )


@torch.no_grad()
@pytest.mark.parametrize("naflex", [False, True], ids=["fixed size", "NaFlex"])
def test_siglip_against_transformers(tmp_path: Path, naflex: bool) -> None:
    write_siglip(tmp_path, naflex)
    model = Siglip2Model if naflex else SiglipModel
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    theirs = model.from_pretrained(tmp_path).eval()
    # SigLIP 2 has a tokenizer class of its own, which lowers the case.
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    encoded = tokenizer(TEXTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    assert_same(
        load_judge(str(tmp_path)),
        theirs.get_text_features(input_ids=encoded.input_ids).pooler_output,
        theirs.get_image_features(**processor(PICTURES, return_tensors="pt")).pooler_output,
    )


def vision_of(clip: Path) -> Tensor:
    """A CLIP's vision tower and projection, composed by hand."""
    whole = CLIPModel.from_pretrained(clip).eval()
    vision = CLIPVisionModel.from_pretrained(clip).eval()
    pixels = clip_processor()(PICTURES, return_tensors="pt").pixel_values
    return whole.visual_projection(vision(pixels).pooler_output)


@pytest.fixture
def taiyi(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    folder = tmp_path / "taiyi"
    tokenizer = bert_tokenizer(folder)
    config = BertConfig(**TOWER, vocab_size=len(tokenizer), num_labels=24)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_taiyi_against_bert_and_clip_vision(taiyi: Path, clip: Path) -> None:
    bert = BertModel.from_pretrained(taiyi).eval()
    head = BertForSequenceClassification.from_pretrained(taiyi).classifier
    tokenizer = BertTokenizer.from_pretrained(taiyi)
    # One at a time, as in its model card: nothing is padded.
    texts = [head(bert(tokenizer(text, return_tensors="pt").input_ids).pooler_output)[0] for text in TEXTS]
    assert_same(load_judge(f"{taiyi}+{clip}"), torch.stack(texts), vision_of(clip))


@torch.no_grad()
@pytest.mark.parametrize("pickled", [False, True])
def test_m_clip_against_xlm_roberta_and_clip_vision(tmp_path: Path, clip: Path, pickled: bool) -> None:
    torch.manual_seed(2)
    folder = tmp_path / "m-clip"
    tokenizer = AutoTokenizer.from_pretrained(emoji_m18_folder() / "tokenizer")
    tokenizer.save_pretrained(folder)
    config = XLMRobertaConfig(
        **{**TOWER, "hidden_size": 64, "num_attention_heads": 1},
        vocab_size=len(tokenizer),
        max_position_embeddings=80,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
    )
    xlmr, linear = XLMRobertaModel(config).eval(), nn.Linear(64, 24)
    state = {f"transformer.{k}": v for k, v in xlmr.state_dict().items()}
    state |= {f"LinearTransformation.{k}": v for k, v in linear.state_dict().items()}
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        from safetensors.torch import save_file

        save_file(state, folder / "model.safetensors")
    published = {"modelBase": "xlm-roberta-large", "transformerDimensions": 64, "numDims": 24, "model_type": "M-CLIP"}
    (folder / "config.json").write_text(json.dumps(published))
    encoded = tokenizer(TEXTS, padding=True, return_tensors="pt")
    states, mask = xlmr(**encoded).last_hidden_state, encoded.attention_mask
    texts = linear((states * mask.unsqueeze(2)).sum(1) / mask.sum(1)[:, None])
    assert_same(load_judge(f"{folder}+{clip}"), texts, vision_of(clip))


@torch.no_grad()
def test_open_clip_against_itself() -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    from altdiffusion_clip.judges.open_clip import OpenCLIPJudge

    model, _, preprocess = open_clip.create_model_and_transforms("ViT-S-32-alt", pretrained=None)
    tokenizer = open_clip.get_tokenizer("ViT-S-32-alt")
    model.eval()
    judge = OpenCLIPJudge("open_clip", model, preprocess, tokenizer)
    pixels = torch.stack([preprocess(picture) for picture in PICTURES])
    assert_same(judge, model.encode_text(tokenizer(TEXTS)), model.encode_image(pixels))


@pytest.mark.parametrize("width", [32, 128], ids=["one head", "two heads"])
def test_image_reward_against_its_paper(tmp_path: Path, width: int) -> None:
    write_image_reward(tmp_path, width)
    judge = load_judge(str(tmp_path))
    pictures = [*PICTURES, PICTURES[0].resize((80, 40))]
    scores = judge.pair_scores(TEXTS, [judge.preprocess(picture) for picture in pictures])
    torch.testing.assert_close(scores, image_reward(tmp_path, TEXTS, pictures), atol=1e-5, rtol=1e-5)
    assert judge.measure == "score"
    fingerprint = judge.fingerprint()
    weights = torch.load(tmp_path / "ImageReward.pt", weights_only=True)
    torch.save(weights | {"mlp.layers.7.bias": weights["mlp.layers.7.bias"] + 1}, tmp_path / "ImageReward.pt")
    assert load_judge(str(tmp_path)).fingerprint() != fingerprint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "ImageReward.pt").unlink(), "has no weights beside med_config.json"),
        (lambda folder: (folder / "ImageReward.pt").write_bytes(b"x" * 100), "is not an ImageReward"),
        (lambda folder: torch.save({"a": torch.ones(1)}, folder / "ImageReward.pt"), "is not an ImageReward"),
        (lambda folder: (folder / "med_config.json").write_text("{"), "med_config.json"),
    ],
)
def test_a_damaged_image_reward_is_one_line(tmp_path: Path, damage, message: str) -> None:
    damage(write_image_reward(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        load_judge(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_text_that_image_reward_cuts_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    judge = load_judge(str(write_image_reward(tmp_path)))
    pictures = [judge.preprocess(PICTURES[0])]
    judge.pair_scores(["a cat"], pictures)
    assert not caplog.records
    judge.pair_scores(["a cat " * 60], pictures)
    assert "reads 35 tokens; longer texts are cut" in caplog.text


def test_a_text_does_not_depend_on_those_beside_it(taiyi: Path, clip: Path) -> None:
    for name in ("emoji-m18", "emoji-m18/teacher", str(clip), f"{taiyi}+{clip}"):
        judge = load_judge(name)
        alone = torch.cat([judge.text_features([text]) for text in TEXTS])
        torch.testing.assert_close(judge.text_features(TEXTS), alone, atol=1e-5, rtol=0)


def test_the_fingerprint_tells_weights_and_preprocessing_apart(clip: Path) -> None:
    first = load_judge(str(clip)).fingerprint()
    assert load_judge(str(clip)).fingerprint() == first
    assert load_judge("emoji-m18").fingerprint() != first
    settings = json.loads((clip / "preprocessor_config.json").read_text())
    (clip / "preprocessor_config.json").write_text(json.dumps({**settings, "do_center_crop": False}))
    other = load_judge(str(clip)).fingerprint()
    assert other != first
    model = CLIPModel.from_pretrained(clip)
    with torch.no_grad():
        model.logit_scale += 1
    model.save_pretrained(clip)
    assert load_judge(str(clip)).fingerprint() != other


def test_a_text_that_is_cut_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    judge = load_judge("emoji-m18/teacher")
    with caplog.at_level(logging.WARNING):
        judge.text_features(["a cat " * 60, "a dog " * 60])
        judge.text_features(["a dog " * 60])
    (record,) = caplog.records
    assert "longer texts are cut, as 'a cat" in record.getMessage()


def test_towers_of_two_widths(taiyi: Path, clip: Path, tmp_path: Path) -> None:
    config = json.loads((taiyi / "config.json").read_text())
    tokenizer = BertTokenizer.from_pretrained(taiyi)
    other = tmp_path / "other"
    small = BertConfig(**TOWER, vocab_size=config["vocab_size"], num_labels=16)
    BertForSequenceClassification(small).save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(UserError, match=r"vectors of 16 numbers and .* of 24"):
        load_judge(f"{other}+{clip}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/at/all", "cannot get nowhere/at/all: there is no file or folder"),
        ("{empty}", "has no model_index.json and no config.json"),
        ("{gpt}", "neither an AltDiffusion nor an AltCLIP"),
        ("{gpt}+{clip}", "a text tower alone is Taiyi's or M-CLIP's"),
        ("open_clip:ViT-B-32", "names no weights|not installed"),
    ],
)
def test_bad_names_are_one_line(name: str, message: str, tmp_path: Path, clip: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match=message) as caught:
        load_judge(name.format(empty=tmp_path / "empty", gpt=tmp_path / "gpt", clip=clip))
    assert "\n" not in str(caught.value)
