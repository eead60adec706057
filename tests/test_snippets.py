"""The published checkpoints' own examples, with only the package's name (and what they load) changed."""

import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AltCLIPModel, AutoModel, AutoProcessor, pipeline

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.errors import UserError
from tests.pictures import held_out_pictures

CAT = held_out_pictures()[0].path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("saved")
    AltCLIPScorer.from_pretrained("emoji-m18").save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", ["emoji-m18", "saved"])
def test_altclips_quick_start(name: str, saved: str) -> None:
    from altdiffusion_clip import AltCLIP, AltCLIPProcessor

    name = saved if name == "saved" else name
    model = AltCLIP.from_pretrained(name)
    processor = AltCLIPProcessor.from_pretrained(name)

    image = Image.open(CAT)

    inputs = processor(text=["a photo of a cat", "a photo of a dog"], images=image, return_tensors="pt", padding=True)

    outputs = model(**inputs)
    logits_per_image = outputs.logits_per_image  # this is the image-text similarity score
    probs = logits_per_image.softmax(dim=1)  # we can take the softmax to get the label probabilities
    assert probs.shape == (1, 2)
    assert probs[0, 0] > 0.9


def test_transformers_auto_classes(saved: str) -> None:
    model = AutoModel.from_pretrained(saved)
    processor = AutoProcessor.from_pretrained(saved)

    image = Image.open(CAT)
    inputs = processor(text=["一只猫", "一只狗"], images=image, return_tensors="pt", padding=True)

    with torch.no_grad():
        outputs = model(**inputs)
    probs = outputs.logits_per_image.softmax(dim=1)
    assert probs[0, 0] > 0.9

    ours = AltCLIPScorer.from_pretrained(saved).eval()
    torch.testing.assert_close(ours(**inputs).logits_per_image, outputs.logits_per_image, atol=1e-4, rtol=0)


def test_transformers_zero_shot_pipeline(saved: str) -> None:
    classify = pipeline("zero-shot-image-classification", model=saved)
    answers = classify(str(CAT), candidate_labels=["狗", "猫", "苹果"], hypothesis_template="一只{}")
    assert answers[0]["label"] == "猫"
    assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-4)


def test_transformers_zero_shot_pipeline_takes_our_scorer_in_silence(saved: str, capfd) -> None:
    scorer = AltCLIPScorer.from_pretrained(saved)
    capfd.readouterr()
    parts = {"tokenizer": scorer.processor.tokenizer, "image_processor": scorer.processor.image_processor}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classify = pipeline("zero-shot-image-classification", model=scorer, **parts)
        answers = classify(str(CAT), candidate_labels=["狗", "猫", "苹果"], hypothesis_template="一只{}")
    assert answers[0]["label"] == "猫"
    out, err = capfd.readouterr()
    assert (out + err).strip() == ""
    # By the folder's name it is still transformers' own class.
    assert type(pipeline("zero-shot-image-classification", model=saved).model) is AltCLIPModel


def test_the_processor_of_a_folder_that_has_none(tmp_path: Path) -> None:
    from altdiffusion_clip import AltCLIPProcessor

    with pytest.raises((OSError, UserError)):
        AltCLIPProcessor.from_pretrained(tmp_path)
