import pytest

from altdiffusion_clip.emoji import captions, colours, concepts, grounds
from altdiffusion_clip.emoji.languages import LANGUAGES


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_caption_of_a_thing_is_different(language: str) -> None:
    for concept in concepts():
        for ground in (None, *grounds()):
            said = captions(concept, ground, language)
            assert len(set(said)) == len(said) >= 2, said


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_meanings_share_a_sentence(language: str) -> None:
    seen: dict[str, tuple[int, object]] = {}
    for concept in concepts():
        for colour in (None, *colours()):
            for sentence in captions(concept, colour, language):
                assert seen.setdefault(sentence, (concept.index, colour)) == (concept.index, colour)


def test_an_unknown_language() -> None:
    with pytest.raises(KeyError, match="xx"):
        captions(concepts()[0], None, "xx")
