import importlib

import pytest
from emoji import EMOJI_DATA
from emoji import config as emoji_config
from PIL import Image

from altdiffusion_clip.emoji import captions, colours, concepts, find_colour, find_concept
from altdiffusion_clip.emoji.concepts import LANGUAGES, is_held_out
from altdiffusion_clip.emoji.held_out import PER_PAIR, held_out_pictures
from altdiffusion_clip.emoji.renders import HELD_OUT_PLACEMENTS, RESOLUTION, TRAIN_PLACEMENTS
from altdiffusion_clip.emoji.world import CaptionBank, all_captions


class TestConcepts:
    def test_there_are_enough(self) -> None:
        assert len(concepts()) >= 80
        assert len(colours()) >= 8
        assert {"cat", "dog", "red apple"} <= {concept.names["en"] for concept in concepts()}

    def test_names_are_cldrs_and_distinct_in_each_language(self) -> None:
        for language in LANGUAGES:
            emoji_config.load_language(language)
            names = [concept.names[language] for concept in concepts()]
            assert len(set(names)) == len(names), language
            for concept, name in zip(concepts(), names, strict=True):
                data = EMOJI_DATA.get(concept.emoji) or EMOJI_DATA[concept.emoji + "\ufe0f"]
                assert data[language].strip(":").replace("_", " ") == name

    def test_unknown_names_say_what_to_do(self) -> None:
        with pytest.raises(KeyError, match="concepts\\(\\) lists"):
            find_concept("unicorn")
        with pytest.raises(KeyError, match="white, black"):
            find_colour("mauve")


class TestCaptions:
    def test_every_way_is_different_and_names_the_concept(self) -> None:
        for language in LANGUAGES:
            for concept in concepts():
                for colour in (None, *colours()):
                    said = captions(concept, colour, language)
                    assert len(set(said)) == len(said) >= 2 or language == "en"
                    assert all(concept.names[language] in sentence for sentence in said)

    def test_no_two_meanings_share_a_sentence(self) -> None:
        for language in LANGUAGES:
            seen: dict[str, tuple[int, object]] = {}
            for concept in concepts():
                for colour in (None, *colours()):
                    for sentence in captions(concept, colour, language):
                        assert seen.setdefault(sentence, (concept.index, colour)) == (concept.index, colour)

    def test_an_unknown_language(self) -> None:
        with pytest.raises(KeyError, match="choose one of en"):
            captions(concepts()[0], None, "xx")


class TestHeldOut:
    def test_each_colour_and_concept_is_known_but_not_the_pair(self) -> None:
        for concept in concepts():
            assert sum(is_held_out(concept, colour) for colour in colours()) == 2
        for colour in colours():
            share = sum(is_held_out(concept, colour) for concept in concepts()) / len(concepts())
            assert 0.2 < share < 0.3

    def test_sizes_and_places_are_never_trained_on(self) -> None:
        trained, held_out = set(TRAIN_PLACEMENTS), set(HELD_OUT_PLACEMENTS)
        for field in ("size", "dx", "dy"):
            assert not {getattr(p, field) for p in trained} & {getattr(p, field) for p in held_out}

    def test_training_never_says_a_held_out_pair(self) -> None:
        spoken = set(all_captions(LANGUAGES))
        for picture in held_out_pictures():
            for language in LANGUAGES:
                assert not spoken & set(captions(picture.concept, picture.colour, language))

    def test_pictures_ship_as_files(self) -> None:
        pictures = held_out_pictures()
        assert len(pictures) == 2 * PER_PAIR * len(concepts())
        for picture in pictures:
            with Image.open(picture.path) as image:
                assert image.size == (RESOLUTION, RESOLUTION)
                assert image.mode == "RGB"
                corner = image.getpixel((0, 0))
                distance = sum(abs(a - b) for a, b in zip(corner, picture.colour.rgb, strict=True))
                assert distance < 12, picture.path


def test_the_caption_bank_pairs_each_sentence_with_its_english() -> None:
    import torch

    def tokenize(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = torch.tensor([len(text) for text in texts])
        mask = (torch.arange(int(lengths.max()))[None, :] < lengths[:, None]).long()
        return mask, mask

    bank = CaptionBank(("en", "zh"), tokenize)
    assert len(bank.texts) == len(bank.english) == len(bank.ids)
    at = bank.texts.index("猫")
    assert bank.english[at] == "cat"
    generator = torch.Generator().manual_seed(0)
    concept, colour = bank.draw_meanings(64, generator)
    rows = bank.draw(concept, colour, torch.ones_like(concept), generator)
    for row, index in zip(rows.tolist(), concept.tolist(), strict=True):
        assert concepts()[index].names["zh"] in bank.texts[row]
    ids, mask = bank.batch(rows[bank.similar_lengths(rows, 16, generator)])
    assert ids.shape == mask.shape
    assert mask.sum(1).max() == mask.shape[1]


def test_the_public_names() -> None:
    module = importlib.import_module("altdiffusion_clip.emoji")
    for name in module.__all__:
        assert callable(getattr(module, name)) or isinstance(getattr(module, name), type)
