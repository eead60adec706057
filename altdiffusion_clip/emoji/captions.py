"""Captions of concepts, with or without a background colour, in nine languages and one more.

The sentences are this project's own. They never inflect a name, because CLDR has only nominative forms (and the
package that they come from writes German without capitals).
"""

from altdiffusion_clip.emoji.concepts import Colour, Concept

# The colour words of each language, in the form that the templates below need.
_COLOUR_WORDS = {
    "en": "white black red yellow green blue purple pink",
    "zh": "白色 黑色 红色 黄色 绿色 蓝色 紫色 粉色",
    "es": "blanco negro rojo amarillo verde azul morado rosa",
    "fr": "blanc noir rouge jaune vert bleu violet rose",
    "ru": "белом чёрном красном жёлтом зелёном синем фиолетовом розовом",
    "ja": "白い 黒い 赤い 黄色い 緑の 青い 紫の ピンクの",
    "ko": "흰색 검은색 빨간색 노란색 초록색 파란색 보라색 분홍색",
    "ar": "بيضاء سوداء حمراء صفراء خضراء زرقاء بنفسجية وردية",
    "it": "bianco nero rosso giallo verde blu viola rosa",
    "de": "weißem schwarzem rotem gelbem grünem blauem violettem rosafarbenem",
}
_ORDER = ["white", "black", "red", "yellow", "green", "blue", "purple", "pink"]

_NAME_ONLY = {
    "en": ("{name}", "{a_name}", "a picture of {a_name}"),
    "zh": ("{name}", "一只{name}", "一个{name}", "{name}的图片"),
    "es": ("{name}", "una imagen de {name}", "dibujo: {name}"),
    "fr": ("{name}", "une image : {name}", "dessin : {name}"),
    "ru": ("{name}", "картинка: {name}", "рисунок: {name}"),
    "ja": ("{name}", "{name}の絵", "{name}の写真"),
    "ko": ("{name}", "{name} 그림", "{name} 사진"),
    "ar": ("{name}", "صورة {name}", "رسم {name}"),
    "it": ("{name}", "un'immagine: {name}", "disegno: {name}"),
    "de": ("{name}", "ein bild: {name}", "zeichnung: {name}"),
}
_WITH_COLOUR = {
    "en": ("{name} on a {colour} background", "{a_name} on a {colour} background", "{colour} background, {name}"),
    "zh": ("{colour}背景上的{name}", "{name},{colour}背景", "{colour}背景上有一只{name}", "{colour}背景上有一个{name}"),
    "es": ("{name} sobre fondo {colour}", "{name} en un fondo {colour}", "fondo {colour}, {name}"),
    "fr": ("{name} sur fond {colour}", "{name} sur un fond {colour}", "fond {colour}, {name}"),
    "ru": ("{name} на {colour} фоне", "на {colour} фоне {name}"),
    "ja": ("{colour}背景の{name}", "{colour}背景に{name}", "{name}、{colour}背景"),
    "ko": ("{colour} 배경의 {name}", "{colour} 배경 위의 {name}", "{name}, {colour} 배경"),
    "ar": ("{name} على خلفية {colour}", "خلفية {colour}، {name}"),
    "it": ("{name} su sfondo {colour}", "{name} su uno sfondo {colour}", "sfondo {colour}, {name}"),
    "de": ("{name} auf {colour} hintergrund", "{name} vor {colour} hintergrund", "auf {colour} hintergrund: {name}"),
}
# Two things in one picture, without and with their positions.
_SCENE = {
    "en": ("{a_left} and {a_right}", "{a_left} on the left and {a_right} on the right"),
    "zh": ("{left}和{right}", "左边是{left},右边是{right}"),
    "es": ("{left} y {right}", "a la izquierda {left}, a la derecha {right}"),
    "fr": ("{left} et {right}", "à gauche {left}, à droite {right}"),
    "ru": ("{left} и {right}", "слева {left}, справа {right}"),
    "ja": ("{left}と{right}", "左に{left}、右に{right}"),
    "ko": ("{left} 그리고 {right}", "왼쪽에 {left}, 오른쪽에 {right}"),
    "ar": ("{left} و{right}", "{left} على اليسار و{right} على اليمين"),
    "it": ("{left} e {right}", "a sinistra {left}, a destra {right}"),
    "de": ("{left} und {right}", "links {left}, rechts {right}"),
}
_SCENE_COLOUR = {
    "en": ", {colour} background",
    "zh": ",{colour}背景",
    "es": ", fondo {colour}",
    "fr": ", fond {colour}",
    "ru": " на {colour} фоне",
    "ja": "、{colour}背景",
    "ko": ", {colour} 배경",
    "ar": "، خلفية {colour}",
    "it": ", sfondo {colour}",
    "de": " auf {colour} hintergrund",
}
_PLURAL_IN_ENGLISH = {"grapes", "cherries", "french fries", "glasses", "broccoli", "bread", "fire"}


def captions(concept: Concept, colour: Colour | None, language: str) -> list[str]:
    """The captions of a concept, with or without its background colour.

    Args:
        concept: what the picture shows.
        colour: its background, or None for captions that only name the concept.
        language: one of `LANGUAGES` or `ADDED_LANGUAGES`.

    Raises:
        KeyError: there are no captions in that language.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import find_colour, find_concept
        >>> captions(find_concept("cat"), find_colour("blue"), "zh")[0]
        '蓝色背景上的猫'
        >>> captions(find_concept("cat"), None, "en")
        ['cat', 'a cat', 'a picture of a cat']
    """
    _check(language)
    name = concept.names[language]
    words = {"name": name, "a_name": _with_article(name) if language == "en" else name}
    if colour is None:
        templates = _NAME_ONLY[language]
    else:
        templates = _WITH_COLOUR[language]
        words["colour"] = _colour_word(colour, language)
    return [template.format(**words) for template in templates]


def scene_captions(left: Concept, right: Concept, colour: Colour | None, language: str) -> list[str]:
    """The captions of two concepts beside each other.

    Args:
        left: what is on the left.
        right: what is on the right.
        colour: the background, or None for captions that do not mention it.
        language: one of `LANGUAGES` or `ADDED_LANGUAGES`.

    Returns:
        Three sentences: both things in either order, and one that says which is where.

    Raises:
        KeyError: there are no captions in that language.

    Example:
        >>> from altdiffusion_clip.emoji.concepts import find_concept
        >>> scene_captions(find_concept("cat"), find_concept("red apple"), None, "zh")
        ['猫和红苹果', '红苹果和猫', '左边是猫,右边是红苹果']
    """
    _check(language)
    both, placed = _SCENE[language]
    said = [_fill(both, left, right, language), _fill(both, right, left, language)]
    said.append(_fill(placed, left, right, language))
    if colour is None:
        return said
    ending = _SCENE_COLOUR[language].format(colour=_colour_word(colour, language))
    return [sentence + ending for sentence in said]


def _check(language: str) -> None:
    if language not in _NAME_ONLY:
        raise KeyError(f"no captions in {language!r}; choose one of {', '.join(_NAME_ONLY)}")


def _fill(template: str, left: Concept, right: Concept, language: str) -> str:
    names = {"left": left.names[language], "right": right.names[language]}
    if language == "en":
        names = {f"a_{side}": _with_article(name) for side, name in names.items()}
    return template.format(**names)


def _colour_word(colour: Colour, language: str) -> str:
    return _COLOUR_WORDS[language].split()[_ORDER.index(colour.name)]


def _with_article(english_name: str) -> str:
    if english_name in _PLURAL_IN_ENGLISH:
        return english_name
    return ("an " if english_name[0] in "aeiou" else "a ") + english_name
