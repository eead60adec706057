from PIL import Image

from altdiffusion_clip.emoji import captions, concepts
from altdiffusion_clip.emoji.captions import scene_captions
from altdiffusion_clip.emoji.concepts import LANGUAGES, is_pair_held_out
from altdiffusion_clip.emoji.data import known_scenes, sentences
from altdiffusion_clip.emoji.held_out import PER_PAIR, held_out_pictures
from altdiffusion_clip.emoji.renders import HELD_OUT_PLACEMENTS, RESOLUTION, TRAIN_PLACEMENTS


def test_sizes_and_places_are_never_trained_on() -> None:
    trained, held_out = set(TRAIN_PLACEMENTS), set(HELD_OUT_PLACEMENTS)
    for field in ("size", "dx", "dy"):
        assert not {getattr(p, field) for p in trained} & {getattr(p, field) for p in held_out}


def test_training_never_says_a_held_out_pair() -> None:
    spoken = set(sentences(LANGUAGES))
    for picture in held_out_pictures():
        for language in LANGUAGES:
            assert not spoken & set(captions(picture.concept, picture.colour, language))
    left = concepts()[0]
    for right in concepts()[1:]:
        if is_pair_held_out(left, right):
            for language in LANGUAGES:
                assert not spoken & set(scene_captions(left, right, None, language))


def test_training_never_shows_a_held_out_scene() -> None:
    scenes = known_scenes()
    assert len(scenes) == len(concepts()) * len(concepts()) * 4 // 5 - sum(
        not is_pair_held_out(c, c) for c in concepts()
    )
    assert not [scene for scene in scenes if is_pair_held_out(scene[0], scene[1])]


def test_pictures_ship_as_files() -> None:
    pictures = held_out_pictures()
    assert len(pictures) == 2 * PER_PAIR * len(concepts())
    for picture in pictures:
        with Image.open(picture.path) as image:
            assert image.size == (RESOLUTION, RESOLUTION)
            assert image.mode == "RGB"
            corner = image.getpixel((0, 0))
            distance = sum(abs(a - b) for a, b in zip(corner, picture.colour.rgb, strict=True))
            assert distance < 12, picture.path
