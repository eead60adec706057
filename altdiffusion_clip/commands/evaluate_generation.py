"""`altdiffusion evaluate generation`: do pictures fit their prompts equally well in every language?"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altdiffusion_clip.commands.judge_options import (
    add_cache_options,
    add_judge_option,
    bench_for,
    judges_of,
)
from altdiffusion_clip.commands.options import add_model_options, device_and_dtype
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from altdiffusion_clip.evaluation.generation import Scene

EMOJI = "emoji"


def add_parser(what: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = what.add_parser(
        "generation",
        help="Measure how well drawn pictures match their prompts, by language.",
        description="Measure the mean CLIP score, 100 max(cosine, 0), of pictures with their own prompts and with the "
        "English prompts of the same scenes, by language, and the gap to English. With --model, missing pictures are "
        "drawn first; the same command continues after a stop.",
        examples=[
            "altdiffusion evaluate generation prompts.jsonl pictures/ --model BAAI/AltDiffusion-m9 --judge "
            "BAAI/AltCLIP-m18"
        ],
    )
    parser.add_argument(
        "prompts",
        help='A .jsonl file with lines like {"id": "1", "prompts": {"en": "a cat", "zh": "猫"}}; or emoji, for unseen '
        "things on unseen backgrounds.",
    )
    parser.add_argument("pictures", type=Path, metavar="FOLDER", help="A folder that `altdiffusion generate` wrote.")
    parser.add_argument("--model", help="Draw missing pictures with this model.")
    add_judge_option(parser)
    parser.add_argument("--languages", nargs="+", default=[], metavar="CODE", help="Languages (default: all).")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="Scenes of emoji (default: 100).")
    parser.add_argument("--num-images", type=int, default=1, metavar="N", help="Pictures per prompt (default: 1).")
    parser.add_argument("--seed", type=int, default=0, help="Seed of each prompt's first picture (default: 0).")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="Denoising steps (default: the model's own, or else 20)."
    )
    parser.add_argument(
        "--guidance-scale", type=float, metavar="SCALE", help="Guidance (default: the model's, or 7.5)."
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="Write everything to a .json file.")
    parser.add_argument("--html", type=Path, metavar="FILE", help="Write a page with plots.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object per line, not a table.")
    add_cache_options(parser)
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Draws if asked to, then measures, prints and writes."""
    for name in ("count", "num_images", "steps"):
        given = getattr(options, name)
        if given is not None and given < 1:
            raise UserError(f"--{name.replace('_', '-')} must be 1 or more")
    if options.output and options.output.suffix != ".json":
        raise UserError(f"--output {options.output}: the name must end in .json")

    from altdiffusion_clip.commands.options import prepare_output
    from altdiffusion_clip.drawing.log import read_results
    from altdiffusion_clip.evaluation.generation import emoji_scenes, evaluate_generation, match, read_scenes
    from altdiffusion_clip.evaluation.tables import table
    from altdiffusion_clip.files import write_text
    from altdiffusion_clip.judges.names import load_panel

    prepare_output()
    languages = options.languages
    if options.prompts == EMOJI:
        scenes = emoji_scenes(options.count, languages)
    else:
        scenes = read_scenes(Path(options.prompts), languages)
    if not any(scene.prompts for scene in scenes):
        raise UserError(f"there are no prompts in {', '.join(languages)}")
    if options.model:
        _draw(options, scenes)
    drawn = match(read_results(options.pictures), options.pictures, scenes)
    rows: list[dict[str, Any]] = []
    units: list[str] = []
    for name in judges_of(options):
        panel = load_panel(name, *device_and_dtype(options))
        column = panel.columns[0]
        results = evaluate_generation(bench_for(options, panel, 32), drawn)
        rows += [{"system": column.name, **_rounded(asdict(each))} for each in results]
        unit = "CLIP score, 100 max(cosine, 0)" if column.measure == "cosine" else "score, without a unit"
        units += [unit] * len(results)

    full = [{**row, "unit": unit} for row, unit in zip(rows, units, strict=True)]
    if options.json:
        for row in full:
            print(json.dumps(row, ensure_ascii=False))
    else:
        shown = [{key: "" if value is None else value for key, value in row.items()} for row in rows]
        print(table("CLIP score of drawn pictures, 100 max(cosine, 0)", shown))
    if options.output:
        write_text(options.output, json.dumps(full, ensure_ascii=False, indent=1) + "\n")
    if options.html:
        from altdiffusion_clip.evaluation.generation_report import write_html

        write_html(options.html, rows, drawn)
    return True


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: [round(each, 3) for each in value]
        if isinstance(value, tuple)
        else round(value, 3)
        if isinstance(value, float)
        else value
        for key, value in row.items()
    }


def _draw(options: argparse.Namespace, scenes: "list[Scene]") -> None:
    """Draws the prompts whose pictures do not exist yet."""
    from altdiffusion_clip.commands.loading import load_pipeline
    from altdiffusion_clip.drawing.generation import generate
    from altdiffusion_clip.drawing.settings import usual_guidance_scale, usual_steps

    guidance = usual_guidance_scale(options.model) if options.guidance_scale is None else options.guidance_scale
    rows = generate(
        list(dict.fromkeys(text for scene in scenes for text in scene.prompts.values())),
        load_pipeline(options.model, *device_and_dtype(options)),
        options.pictures,
        name=options.model,
        seeds=range(options.seed, options.seed + options.num_images),
        num_inference_steps=usual_steps(options.model) if options.steps is None else options.steps,
        guidance_scale=guidance,
    )
    for row in rows:
        if row["error"]:
            raise UserError(f"{row['prompt']!r}, seed {row['seed']}: {row['error']}")
