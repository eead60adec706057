import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from altdiffusion_clip.checkpoints.model_ids import emoji_m9_folder
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.data.image_text import CaptionedPictures, square


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(emoji_m9_folder() / "tokenizer")


def write(folder: Path, records: list[dict[str, object]], pictures: int = 4) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(pictures):
        Image.new("RGB", (20 + 4 * number, 16), (10 * number, 0, 0)).save(folder / f"{number}.png")
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    (folder / "captions.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_captions_are_drawn_with_their_picture(tokenizer, tmp_path: Path) -> None:
    data = write(
        tmp_path / "a",
        [
            {"image": "0.png", "captions": {"en": ["cat", "a cat"], "zh": ["猫"]}},
            {"image": "1.png", "caption": "dog"},
            {"image": "2.png", "text": "红苹果", "language": "zh"},
        ],
    )
    pictures = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "out")
    assert pictures.languages == ["en", "zh"]
    assert pictures.pixels.shape == (3, 3, 8, 8)
    shown, texts = pictures.draw(400, torch.Generator().manual_seed(0))
    said = {(picture, pictures.texts.text(text)) for picture, text in zip(shown.tolist(), texts.tolist(), strict=True)}
    assert said == {(0, "cat"), (0, "a cat"), (0, "猫"), (1, "dog"), (2, "红苹果")}
    ids, mask = pictures.tokenised(torch.tensor([0, 2]), pad_token_id=1)
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == ["cat", "猫"]
    assert torch.equal(mask, (ids != 1).long())
    assert [None if t is None else pictures.texts.text(t) for t in pictures.first_captions("zh")] == [
        "猫",
        None,
        "红苹果",
    ]


def test_a_caption_is_true_of_every_picture_that_has_it(tokenizer, tmp_path: Path) -> None:
    records: list[dict[str, object]] = [
        {"image": "0.png", "captions": {"en": ["cat", "a blue cat"]}},
        {"image": "1.png", "captions": {"en": ["cat", "a red cat"]}},
        {"image": "2.png", "captions": {"en": ["dog"]}},
    ]
    pictures = CaptionedPictures.prepare([write(tmp_path / "a", records)], 8, tokenizer, tmp_path / "out")
    rows = {pictures.texts.text(row): row for row in range(len(pictures.texts))}
    texts = torch.tensor([rows[text] for text in ("cat", "a blue cat", "dog")])
    assert pictures.positives(texts, torch.arange(3)).tolist() == [
        [True, True, False],
        [True, False, False],
        [False, False, True],
    ]


def test_languages_are_chosen_and_mixed(tokenizer, tmp_path: Path) -> None:
    records: list[dict[str, object]] = [
        {"image": "0.png", "captions": {"en": "cat", "zh": "猫"}},
        {"image": "1.png", "captions": {"en": "dog", "zh": "狗"}},
    ]
    data = write(tmp_path / "a", records)
    chinese = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "zh", languages=["zh"])
    assert {chinese.texts.text(row) for row in range(len(chinese.texts))} == {"猫", "狗"}
    mixed = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "out", weights={"en": 3.0})
    assert mixed.mix.shares == {"en": 0.75, "zh": 0.25}


def test_bad_records_are_counted_and_named(tokenizer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records: list[dict[str, object]] = [
        {"image": "0.png", "captions": {"en": "cat", "zh": "猫"}},
        {"image": "1.png", "captions": {"en": ""}},
        {"captions": {"en": "dog"}},
        {"image": "missing.png", "caption": "x"},
        {"image": "broken.png", "caption": "y"},
        {"image": "2.png", "captions": {"en": "pig"}},
    ]
    data = write(tmp_path / "a", records)
    (data / "broken.png").write_bytes((data / "0.png").read_bytes()[:40])
    pictures = CaptionedPictures.prepare([data], 8, tokenizer, tmp_path / "out", languages=["en", "zh"])
    assert pictures.left_out == {
        "no caption": 1, "no image": 1, "image file missing": 1, "image cannot be read": 1, "no caption in zh": 2,
    }  # fmt: skip
    assert "6 left out" in caplog.text
    assert "broken.png" in caplog.text
    assert len(pictures) == 2
    shown, _ = pictures.draw(50, torch.Generator().manual_seed(0))
    assert set(shown.tolist()) == {0, 1}
    assert pictures.pixels[1].max() == 20, "the place of the broken picture is not kept"


def test_no_picture_at_all(tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no picture with a caption"):
        CaptionedPictures.prepare([write(tmp_path / "a", [{"image": "9.png"}])], 8, tokenizer, tmp_path / "out")
    with pytest.raises(UserError, match=r"there is no .*nowhere; write a JSON object a line"):
        CaptionedPictures.prepare([tmp_path / "nowhere"], 8, tokenizer, tmp_path / "out")


def test_squares() -> None:
    wide = Image.new("RGB", (40, 20), "white")
    wide.paste("red", (10, 0, 30, 20))
    middle = np.asarray(square(wide, 10))
    assert middle.shape == (10, 10, 3)
    assert (middle[:, 1:-1] == (255, 0, 0)).all(), "scaled, then cut around the middle"
    assert square(Image.new("RGB", (8, 5)), 16).size == (16, 16)


def test_positives_are_whatever_is_true_in_large_batches_too(tokenizer, tmp_path: Path) -> None:
    said = ["cat", "dog", "red apple", "a picture"]
    records = [{"image": f"{n}.png", "captions": {"en": [said[n], said[3]]}} for n in range(3)]
    pictures = CaptionedPictures.prepare([write(tmp_path / "a", records, 3)], 8, tokenizer, tmp_path / "out")
    shown, texts = pictures.draw(4096, torch.Generator().manual_seed(0))
    found = pictures.positives(texts, shown)
    few = slice(0, 60)
    true_of = [set(pictures.of_picture[picture].tolist()) for picture in shown[few].tolist()]
    slow = torch.tensor([[text in captions for captions in true_of] for text in texts[few].tolist()])
    assert torch.equal(found[few, few], slow)
