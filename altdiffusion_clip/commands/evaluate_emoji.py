"""`altdiffusion evaluate emoji`: measures emoji-m9."""

import argparse
import json
from typing import Any


def add_parser(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    emoji = what.add_parser(
        "emoji",
        help="Measure emoji-m9 on pictures and prompts that it has never seen.",
        description="Measure retrieval on held-out renders, for the English teacher and for the student after each "
        "stage, in nine languages. All figures are percentages.",
        examples=["altdiffusion evaluate emoji --drawing --languages en zh ar"],
    )
    emoji.add_argument(
        "--drawing", action="store_true", help="Also draw unseen prompts and measure how often they are recognised."
    )
    emoji.add_argument(
        "--scenes", action="store_true", help="Also draw unseen pairs of things and measure how often both are right."
    )
    emoji.add_argument(
        "--languages",
        nargs="+",
        default=[],
        metavar="CODE",
        help="Languages to measure (default: all for retrieval, en and zh for drawing).",
    )
    emoji.add_argument("--prompts", type=int, default=100, metavar="N", help="Prompts per language (default: 100).")
    emoji.add_argument("--num-images", type=int, default=8, metavar="N", help="Pictures per prompt (default: 8).")
    emoji.add_argument("--json", action="store_true", help="Print one JSON object per line, not tables.")
    emoji.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Measures and prints."""
    from dataclasses import asdict

    from altdiffusion_clip.commands.options import prepare_output

    prepare_output()
    from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline
    from altdiffusion_clip.emoji.concepts import LANGUAGES
    from altdiffusion_clip.emoji.held_out import held_out_pictures
    from altdiffusion_clip.emoji.recogniser import Recogniser
    from altdiffusion_clip.errors import UserError
    from altdiffusion_clip.evaluation.emoji import evaluate_drawing, evaluate_retrieval, evaluate_scenes, pairs

    for language in options.languages:
        if language not in LANGUAGES:
            raise UserError(f"--languages {language}: emoji-m9 speaks {' '.join(LANGUAGES)}")
    most = len(pairs(unseen=True))
    if not 1 <= options.prompts <= most:
        raise UserError(f"--prompts must be between 1 and {most}")
    if options.num_images < 1:
        raise UserError("--num-images must be 1 or more")
    found = list(evaluate_retrieval(languages=options.languages or LANGUAGES))
    print_rows("Retrieval on held-out renders, percent", found, options.json)
    if not (options.drawing or options.scenes):
        return True
    languages = options.languages or ("en", "zh")
    pipeline = AltDiffusionPipeline.from_pretrained("emoji-m9")
    pipeline.set_progress_bar_config(disable=True)
    if options.drawing:
        scorer = AltCLIPScorer.from_pipeline(pipeline)
        rows = [
            asdict(
                evaluate_drawing(
                    pipeline, scorer, language, options.prompts, n=options.num_images, drawn_from=drawn_from
                )
            )
            # With one picture per prompt there is nothing to choose from.
            for drawn_from in (("prompt", "name") if options.num_images > 1 else ("prompt",))
            for language in languages
        ]
        recogniser = {"recogniser_on_held_out_renders": round(Recogniser.load().accuracy(held_out_pictures()), 2)}
        print_rows("Drawn pictures recognised, percent", [{**row, **recogniser} for row in rows], options.json)
    if options.scenes:
        rows = [
            asdict(evaluate_scenes(pipeline, language, places, options.prompts))
            for places in (False, True)
            for language in languages
        ]
        print_rows("Two things in one picture recognised, percent", rows, options.json)
    return True


def print_rows(title: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    """Prints rows as a table, or as a JSON object each."""
    from altdiffusion_clip.evaluation.tables import table

    print("\n".join(map(json.dumps, rows)) if as_json else table(title, rows))
