"""`altdiffusion evaluate emoji`: measures emoji-m18."""

import argparse
import json
from typing import Any

from altdiffusion_clip.commands.options import add_model_options, device_and_dtype, prepare_output


def add_parser(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = what.add_parser(
        "emoji",
        help="Measure emoji-m18 on scenes and words that it has never seen.",
        description="Measure retrieval on a gallery with hard negatives, for the English teacher and the student in "
        "eighteen languages, in percent. With --drawing, also measure how far drawn pictures are from the nearest "
        "true render, in dB, and how often they are right.",
        examples=["altdiffusion evaluate emoji --drawing --scenes 12 --json"],
    )
    parser.add_argument("--drawing", action="store_true", help="Also draw unseen scenes from prompts in all languages.")
    parser.add_argument(
        "--scenes", type=int, default=12, metavar="N", help="Scenes to draw in each language (default: 12)."
    )
    parser.add_argument("--gallery", type=int, default=100, metavar="N", help="Unseen scenes to find (default: 100).")
    parser.add_argument("--num-images", type=int, default=4, metavar="N", help="Pictures per prompt (default: 4).")
    parser.add_argument(
        "--languages", nargs="+", default=[], metavar="CODE", help="Languages to measure (default: all)."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object per line, not tables.")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Measures and prints."""
    from altdiffusion_clip.emoji.languages import LANGUAGES
    from altdiffusion_clip.errors import UserError

    for name in ("scenes", "num_images", "gallery"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more")
    for language in options.languages:
        if language not in LANGUAGES:
            raise UserError(f"--languages {language}: emoji-m18 speaks {' '.join(LANGUAGES)}")
    prepare_output()

    from altdiffusion_clip import AltCLIPScorer
    from altdiffusion_clip.commands.loading import load_pipeline
    from altdiffusion_clip.evaluation.emoji import evaluate_drawing, evaluate_retrieval

    languages = options.languages or LANGUAGES
    pipeline = load_pipeline("emoji-m18", *device_and_dtype(options))
    scorer = AltCLIPScorer.from_pipeline(pipeline)
    rows = evaluate_retrieval(scorer, options.gallery, languages)
    _print("Retrieval with hard negatives, percent", list(rows), options.json)
    if options.drawing:
        rows = evaluate_drawing(pipeline, scorer, options.scenes, options.num_images, languages)
        _print("Drawing, in dB and percent", list(rows), options.json)
    return True


def _print(title: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    """Prints rows as a table, or as a JSON object each."""
    from altdiffusion_clip.evaluation.tables import table

    print("\n".join(map(json.dumps, rows)) if as_json else table(title, rows))
