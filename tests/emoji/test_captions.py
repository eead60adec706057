import pytest

from altdiffusion_clip.emoji import captions, colours, concepts, find_colour, find_concept
from altdiffusion_clip.emoji.captions import scene_captions
from altdiffusion_clip.emoji.concepts import ADDED_LANGUAGES, LANGUAGES

ALL = [*LANGUAGES, *ADDED_LANGUAGES]


@pytest.mark.parametrize("language", ALL)
def test_every_way_is_different_and_names_the_concept(language: str) -> None:
    for concept in concepts():
        for colour in (None, *colours()):
            said = captions(concept, colour, language)
            assert len(set(said)) == len(said) >= 2 or language == "en"
            assert all(concept.names[language] in sentence for sentence in said)


@pytest.mark.parametrize("language", ALL)
def test_no_two_meanings_share_a_sentence(language: str) -> None:
    seen: dict[str, tuple[int, object]] = {}
    for concept in concepts():
        for colour in (None, *colours()):
            for sentence in captions(concept, colour, language):
                assert seen.setdefault(sentence, (concept.index, colour)) == (concept.index, colour)


@pytest.mark.parametrize("language", ALL)
def test_scenes_name_both_and_say_which_is_where(language: str) -> None:
    cat, apple, blue = find_concept("cat"), find_concept("red apple"), find_colour("blue")
    for colour in (None, blue):
        said = scene_captions(cat, apple, colour, language)
        mirrored = scene_captions(apple, cat, colour, language)
        assert len(set(said)) == 3
        for sentence in said:
            assert cat.names[language] in sentence
            assert apple.names[language] in sentence
        assert set(said[:2]) == set(mirrored[:2]), "either order is true of both"
        assert said[2] != mirrored[2]
    assert not set(scene_captions(cat, apple, None, language)) & set(scene_captions(cat, apple, blue, language))


def test_an_unknown_language() -> None:
    with pytest.raises(KeyError, match="choose one of en"):
        captions(concepts()[0], None, "xx")
    with pytest.raises(KeyError, match="choose one of en"):
        scene_captions(concepts()[0], concepts()[1], None, "xx")
