"""Adds Swedish to emoji-m18: its retrieval before and after, and the loss of the eighteen old languages.

The parallel sentences are this project's own: 90 things on the plain grounds that each may be shown on, in English and
Swedish. Sentences of the old languages are replayed. Retrieval is measured on renders of the same things on the grounds
that no sentence and no picture has shown them on.

    python benchmarks/add_language.py [--steps 1500] [--output build/swedish]
"""

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from report import report
from torch import Tensor

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M18
from altdiffusion_clip.emoji.captions import Claim, captions, say
from altdiffusion_clip.emoji.concepts import Concept, Ground, colours, concepts, find_concept, is_held_out
from altdiffusion_clip.emoji.languages import LANGUAGES
from altdiffusion_clip.emoji.scenes import Scene
from altdiffusion_clip.evaluation.retrieval import Retrieval, retrieval
from altdiffusion_clip.files import atomic_path
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.training.add_language import add_language
from altdiffusion_clip.training.configs import AddLanguageConfig

EN_WORDS = {
    "cat": "katt", "dog": "hund", "rabbit": "kanin", "fox": "räv", "bear": "björn", "panda": "panda", "koala": "koala",
    "tiger": "tiger", "cow": "ko", "pig": "gris", "frog": "groda", "monkey": "apa", "mouse": "mus", "horse": "häst",
    "chick": "kyckling", "penguin": "pingvin", "owl": "uggla", "duck": "anka", "flamingo": "flamingo", "whale": "val",
    "dolphin": "delfin", "shark": "haj", "octopus": "bläckfisk", "crab": "krabba", "fish": "fisk",
    "turtle": "sköldpadda", "snail": "snigel", "butterfly": "fjäril", "ladybug": "nyckelpiga", "elephant": "elefant",
    "giraffe": "giraff", "zebra": "zebra", "hedgehog": "igelkott", "dinosaur": "dinosaurie", "dragon": "drake",
    "squirrel": "ekorre", "palm tree": "palm", "cactus": "kaktus", "tulip": "tulpan", "rose": "ros",
    "sunflower": "solros", "mushroom": "svamp", "orange": "apelsin", "lemon": "citron", "banana": "banan",
    "watermelon": "vattenmelon", "strawberry": "jordgubbe", "peach": "persika", "pineapple": "ananas",
    "carrot": "morot", "hamburger": "hamburgare", "pizza": "pizza", "ice cream": "glass", "lollipop": "klubba",
    "sun": "sol", "moon": "måne", "star": "stjärna", "rainbow": "regnbåge", "snowman": "snögubbe", "car": "bil",
    "bus": "buss", "bicycle": "cykel", "rocket": "raket", "sailboat": "segelbåt", "balloon": "ballong",
    "crown": "krona", "gift": "present", "robot": "robot", "tomato": "tomat", "key": "nyckel",
}  # fmt: skip
"""Swedish nouns that take "en"."""

ETT_WORDS = {
    "lion": "lejon", "bee": "bi", "sheep": "får", "tree": "träd", "apple": "äpple", "pear": "päron", "egg": "ägg",
    "train": "tåg", "airplane": "flygplan", "house": "hus", "castle": "slott", "umbrella": "paraply", "cloud": "moln",
    "ghost": "spöke", "bread": "bröd", "ship": "skepp", "tent": "tält", "candle": "stearinljus", "heart": "hjärta",
    "anchor": "ankare",
}  # fmt: skip
"""Those that take "ett"."""

COLOURS = {
    "white": "vit", "black": "svart", "grey": "grå", "red": "röd", "orange": "orange", "yellow": "gul", "green": "grön",
    "turquoise": "turkos", "blue": "blå", "purple": "lila", "pink": "rosa", "brown": "brun",
}  # fmt: skip


def swedish(concept: Concept, ground: Ground | None) -> list[str]:
    """A thing in Swedish, with or without its plain ground."""
    name = concept.names["en"]
    bare, article = (EN_WORDS[name], "en") if name in EN_WORDS else (ETT_WORDS[name], "ett")
    if ground is None:
        return [bare, f"{article} {bare}", f"en bild av {article} {bare}"]
    colour = COLOURS[ground.name]
    return [
        f"{article} {bare} på {colour} bakgrund",
        f"{bare} på {colour} bakgrund",
        f"{article} {bare} på en {colour} bakgrund",
        f"{bare}, {colour} bakgrund",
    ]


def things() -> list[Concept]:
    """What the Swedish words are for."""
    return [find_concept(name) for name in (*EN_WORDS, *ETT_WORDS)]


def meanings(shown: Sequence[Concept]) -> Iterator[tuple[Concept, Ground | None]]:
    """What sentences say: things alone, and on the plain grounds that are not held out."""
    for thing in shown:
        yield thing, None
        yield from ((thing, ground) for ground in colours() if not is_held_out(thing, ground))


def write_swedish(path: Path) -> None:
    """Writes the new language's parallel sentences."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for thing, ground in meanings(things()):
            said = {"en": captions(thing, ground, "en"), "sv": swedish(thing, ground)}
            file.write(json.dumps(said, ensure_ascii=False) + "\n")


def write_old(path: Path) -> None:
    """Writes sentences of the old languages, of all things."""
    words = random.Random(0)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for thing, ground in meanings(concepts()):
            said = {code: [say(Claim("one", (thing,), ground), code, words)] for code in LANGUAGES}
            file.write(json.dumps(said, ensure_ascii=False) + "\n")


def gallery() -> list[tuple[Concept, Ground]]:
    """Things on plain grounds that no sentence says and no picture shows."""
    return [(thing, ground) for thing in things() for ground in colours() if is_held_out(thing, ground)]


@torch.no_grad()
def retrieval_of(scorer: AltCLIPScorer, images: Tensor, language: str) -> Retrieval:
    """Retrieval in one language."""
    texts = [
        (swedish(thing, ground) if language == "sv" else captions(thing, ground, language))[0]
        for thing, ground in gallery()
    ]
    return retrieval(scorer.encode_texts(texts) @ images.T, torch.eye(len(texts), dtype=torch.bool))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--output", type=Path, default=Path("build/swedish"))
    options = parser.parse_args()
    data = options.output / "sentences"
    data.mkdir(parents=True, exist_ok=True)
    for name, write in (("swedish.jsonl", write_swedish), ("old.jsonl", write_old)):
        if not (data / name).exists():  # a continued run needs the files it started with
            write(data / name)
    config = AddLanguageConfig(
        output=options.output / "run",
        model=EMOJI_M18,
        data=[data / "swedish.jsonl"],
        replay=[data / "old.jsonl"],
        steps=options.steps,
        batch_size=64,
        learning_rate=3e-4,
        warmup_steps=100,
        keep_weight=2.0,
    )
    taught = AltCLIPScorer.from_pretrained(str(add_language(config))).eval()
    before = AltCLIPScorer.from_pretrained(EMOJI_M18).eval()
    images, _ = before.encode_images([Scene("one", (thing,), ground).render() for thing, ground in gallery()])
    rows = {}
    for language in (*LANGUAGES, "sv"):
        old, new = (retrieval_of(scorer, images, language) for scorer in (before, taught))
        rows[language] = (old.text_to_image_r1, new.text_to_image_r1, old.image_to_text_r1, new.image_to_text_r1)
        print(
            f"{language}: text to image {old.text_to_image_r1:.1f} -> {new.text_to_image_r1:.1f}, "
            f"image to text {old.image_to_text_r1:.1f} -> {new.image_to_text_r1:.1f} (R@1, %)"
        )
    lost = max(max(old_t - new_t, old_i - new_i) for code, (old_t, new_t, old_i, new_i) in rows.items() if code != "sv")
    print(json.dumps({"most_lost_by_an_old_language": round(lost, 2), "unit": "points of R@1", "holds": lost <= 1.0}))
    old, new = rows["sv"][0], rows["sv"][1]
    report("add-language-swedish", new, old, "% R@1, text to image", new / max(old, 0.1), 90.0 / 40.0)


if __name__ == "__main__":
    main()
