"""Adds German to emoji-m9: its retrieval before and after, and the loss of the nine old languages.

The parallel sentences come from emoji-m9's own world, with German names from CLDR. Sentences of the nine languages are
replayed. Retrieval is measured on the held-out renders, whose concept-colour pairs appear in no sentence.

    python benchmarks/add_language.py [--steps 1500] [--output build/german]
"""

import argparse
import json
from pathlib import Path

from report import report

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9
from altdiffusion_clip.emoji.concepts import LANGUAGES
from altdiffusion_clip.emoji.data import write_parallel
from altdiffusion_clip.evaluation.emoji import retrieval_of
from altdiffusion_clip.scoring import AltCLIPScorer
from altdiffusion_clip.training.add_language import add_language
from altdiffusion_clip.training.configs import AddLanguageConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--output", type=Path, default=Path("build/german"))
    options = parser.parse_args()
    data = options.output / "sentences"
    data.mkdir(parents=True, exist_ok=True)
    for name, languages in (("german.jsonl", ("en", "de")), ("old.jsonl", LANGUAGES)):
        if not (data / name).exists():  # a continued run needs the files it started with
            write_parallel(data / name, languages, scenes=False)
    config = AddLanguageConfig(
        output=options.output / "run",
        model=EMOJI_M9,
        data=[data / "german.jsonl"],
        replay=[data / "old.jsonl"],
        steps=options.steps,
        batch_size=64,
        learning_rate=5e-4,
        warmup_steps=100,
        keep_weight=2.0,
    )
    taught = AltCLIPScorer.from_pretrained(str(add_language(config))).eval()
    before = AltCLIPScorer.from_pretrained(EMOJI_M9).eval()
    rows = {}
    for language in (*LANGUAGES, "de"):
        old, new = retrieval_of(before, language), retrieval_of(taught, language)
        rows[language] = (old.text_to_image_r1, new.text_to_image_r1, old.image_to_text_r1, new.image_to_text_r1)
        print(
            f"{language}: text to image {old.text_to_image_r1:.1f} -> {new.text_to_image_r1:.1f}, "
            f"image to text {old.image_to_text_r1:.1f} -> {new.image_to_text_r1:.1f} (R@1, %)"
        )
    lost = max(max(old_t - new_t, old_i - new_i) for code, (old_t, new_t, old_i, new_i) in rows.items() if code != "de")
    print(json.dumps({"most_lost_by_an_old_language": round(lost, 2), "unit": "points of R@1", "holds": lost <= 1.0}))
    old, new = rows["de"][0], rows["de"][1]
    report("add-language-german", new, old, "% R@1, text to image", new / max(old, 0.1), 90.0 / 40.0)


if __name__ == "__main__":
    main()
