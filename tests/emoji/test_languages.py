"""The words of eighteen languages: whole, distinct, and in their grammar."""

import re

import pytest

from altdiffusion_clip.emoji.captions import captions, held_out_words
from altdiffusion_clip.emoji.concepts import concepts, find_concept, find_ground, grounds
from altdiffusion_clip.emoji.languages import LANGUAGES, language_of

COUNTED = [concept for concept in concepts() if concept.is_counted]


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_has_words_for_everything(code: str) -> None:
    language = language_of(code)
    assert language.things.keys() == {concept.code for concept in concepts()}
    assert language.on.keys() == language.tags.keys() == {ground.name for ground in grounds()}
    for concept in COUNTED:
        words = language.things[concept.code]
        assert all((words.small, words.big, words.two, words.three)), concept
    for kind, needed in {"alone": "{thing}", "on": "{ground}", "tag": "{ground}", "pair": "{second}"}.items():
        assert all(needed in pattern for pattern in language.patterns[kind])


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_word_is_for_two_things(code: str) -> None:
    seen: dict[str, str] = {}
    for concept in concepts():
        for forms in language_of(code).things[concept.code].names:
            assert seen.setdefault(forms[0].lower(), concept.code) == concept.code, forms[0]


@pytest.mark.parametrize("code", LANGUAGES)
def test_words_are_everyday_words(code: str) -> None:
    """No comma lists, brackets or emoji faces, as CLDR's names have them."""
    for words in language_of(code).things.values():
        for forms in words.names:
            assert not re.search(r"[(),（）،]|の顔|얼굴|^وجه |rosto de|tête de", forms[0]), forms[0]


@pytest.mark.parametrize(
    ("code", "thing", "expected"),
    [
        ("de", "cow", ("eine Kuh", "eine kleine Kuh", "zwei Kühe")),
        ("de", "house", ("ein Haus", "ein kleines Haus", "zwei Häuser")),
        ("fr", "mouse", ("une souris", "une petite souris", "deux souris")),
        ("it", "orange", ("un'arancia", "arancia piccola", "due arance")),
        ("es", "lion", ("un león", "un león pequeño", "dos leones")),
        ("pt", "frog", ("um sapo", "um sapo pequeno", "dois sapos")),
        ("nl", "pig", ("een varken", "een klein varken", "twee varkens")),
        ("ru", "mouse", ("мышь", "маленькая мышь", "две мыши")),
        ("uk", "egg", ("яйце", "маленьке яйце", "два яйця")),
        ("pl", "fish", ("ryba", "mała ryba", "dwie ryby")),
        ("ar", "car", ("سيارة", "سيارة صغيرة", "سيارتان")),
        ("hi", "fish", ("मछली", "छोटी मछली", "दो मछलियाँ")),
        ("zh", "horse", ("一匹马", "小小的马", "两匹马")),
        ("ja", "elephant", ("ゾウ", "小さいゾウ", "二頭のゾウ")),
        ("ko", "tulip", ("튤립", "작은 튤립", "튤립 두 송이")),
        ("th", "cat", ("แมว", "แมวขนาดเล็ก", "แมวสองตัว")),
        ("vi", "cat", ("mèo", "mèo nhỏ", "hai con mèo")),
        ("tr", "bird", ()),
        ("tr", "owl", ("bir baykuş", "küçük baykuş", "iki baykuş")),
        ("en", "apple", ("an apple", "a small apple", "two apples")),
    ],
)
def test_grammar(code: str, thing: str, expected: tuple[str, ...]) -> None:
    if not expected:
        with pytest.raises(KeyError, match="knows no"):
            find_concept(thing)
        return
    words = language_of(code).things[find_concept(thing).code]
    assert (words.names[0][-1], words.small[0], words.two[0]) == expected


def test_no_spaces_where_there_are_none() -> None:
    for code in ("zh", "ja", "th"):
        assert " " not in captions(find_concept("cat"), find_ground("blue"), code)[0]


def test_held_out_words_are_in_no_caption() -> None:
    for code in LANGUAGES[1:]:
        words = held_out_words(code)
        assert words
        for index, word in words.items():
            concept = concepts()[index]
            assert word not in captions(concept, None, code)
            assert word != concept.names[code]


def test_there_is_no_other_language() -> None:
    with pytest.raises(KeyError, match="choose one of en, zh"):
        language_of("tlh")
