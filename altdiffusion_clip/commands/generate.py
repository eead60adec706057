"""`altdiffusion generate`: draws pictures from prompts and ranks them."""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9
from altdiffusion_clip.commands.judge_options import OWN, add_judge_option, panel_for
from altdiffusion_clip.commands.loading import load_pipeline
from altdiffusion_clip.commands.options import DTYPES, add_model_options, device_of, dtype_of, prepare_output
from altdiffusion_clip.commands.ray_options import add_ray_options, check_ray_options, cluster_of
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.schedulers import SCHEDULERS, check_scheduler

if TYPE_CHECKING:
    from PIL.Image import Image

    from altdiffusion_clip.drawing import Settings
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
    from altdiffusion_clip.results import ResultsFolder


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "generate",
        help="draw pictures from prompts and rank them",
        description="Draw pictures from prompts and rank them. Writes the pictures, results.jsonl, "
        "contact-sheet.png and index.html to a folder; pictures that are there already stay.",
    )
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw, in any language of the model")
    parser.add_argument("--prompts-file", type=Path, metavar="FILE", help="one prompt a line, UTF-8")
    parser.add_argument("--from-png", type=Path, metavar="FILE", help="draw a picture again from its own settings")
    parser.add_argument("--model", default=EMOJI_M9, help="a folder, a single file, or a hub id (default: %(default)s)")
    add_judge_option(parser, "--scorer", OWN)
    parser.add_argument("--output", type=Path, default=Path("altdiffusion-output"), metavar="DIR")
    parser.add_argument("--num-images", type=int, default=4, metavar="N", help="for each prompt (default: 4)")
    parser.add_argument("--keep", type=int, metavar="K", help="keep only the K best of each prompt's pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; the next has the next (default: 0)")
    parser.add_argument("--negative-prompt", default="", help="what to keep out of the pictures")
    parser.add_argument("--long-prompts", action="store_true", help="read up to four windows of 77 tokens, not one")
    parser.add_argument("--steps", type=int, default=20, help="of the scheduler (default: 20)")
    parser.add_argument("--guidance-scale", type=float, help="how closely to follow (default: 7.5; emoji-m9: 3)")
    parser.add_argument("--scheduler", choices=SCHEDULERS, help="(default: the model's own)")
    parser.add_argument("--height", type=int, help="in pixels (default: the model's)")
    parser.add_argument("--width", type=int, help="in pixels (default: the model's)")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures drawn at a time (default: 1)")
    parser.add_argument("--fast", action="store_true", help="draw with what is faster here (see pipe.optimize)")
    parser.add_argument("--json", action="store_true", help="one JSON object a picture on stdout, nothing else")
    add_model_options(parser)
    add_ray_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Draws, ranks, writes. Returns whether all pictures were drawn."""
    _check(options)
    prompts, empty = _prompts(options)
    prepare_output()

    from altdiffusion_clip.results import ResultsFolder

    jobs, wanted = _again(options) if options.from_png else (_jobs(options, prompts), None)
    pipeline = load_pipeline(options.model, device_of(options.device), dtype_of(options.dtype))
    _check_size(options, pipeline)
    panel = panel_for(options, pipeline)
    if options.keep and panel is None:
        raise UserError("--keep needs a judge to tell the best; name one with --judge")
    if options.fast:
        jobs = _made_fast(pipeline, jobs)
    drawn = _on_ray(options, jobs) if options.engine == "ray" else _here(pipeline, jobs)
    results = ResultsFolder(options.output, panel, options.keep)
    try:
        failed = [*empty, *_collect(drawn, results, jobs, wanted)]
    finally:
        results.finish()  # also after Ctrl-C: what was drawn can be looked at
    _report(options, results)
    for message in failed:
        print(f"failed {message}", file=sys.stderr)
    return not failed


def _jobs(options: argparse.Namespace, prompts: list[str]) -> list["Settings"]:
    """The batches that draw all prompts with all seeds."""
    from altdiffusion_clip.drawing import Settings, usual_guidance_scale

    usual = usual_guidance_scale(options.model)
    seeds = range(options.seed, options.seed + options.num_images)
    return [
        Settings(
            prompt=prompt,
            seed=batch[0],
            batch_seeds=tuple(batch),
            model=options.model,
            negative_prompt=options.negative_prompt,
            num_inference_steps=options.steps,
            guidance_scale=usual if options.guidance_scale is None else options.guidance_scale,
            height=options.height,
            width=options.width,
            device=str(device_of(options.device)),
            dtype=options.dtype,
            prompt_windows=4 if options.long_prompts else 1,
            scheduler=options.scheduler or "",
        )
        for prompt in prompts
        for batch in (seeds[i : i + options.batch_size] for i in range(0, len(seeds), options.batch_size))
    ]


def _again(options: argparse.Namespace) -> tuple[list["Settings"], set[int]]:
    """The batch that a picture was drawn in, and the one seed of it that is wanted."""
    from altdiffusion_clip.drawing import settings_of

    settings = settings_of(options.from_png)
    if settings.dtype not in DTYPES:
        raise UserError(f"the settings in {options.from_png} are damaged (dtype {settings.dtype!r})")
    check_scheduler(settings.scheduler)
    if settings.strength is not None:
        raise UserError(f"{options.from_png} was changed from another picture, which its settings do not hold")
    options.model, options.device, options.dtype = settings.model, settings.device, settings.dtype
    options.height, options.width, options.fast = settings.height, settings.width, bool(settings.fast)
    return [settings], {settings.seed}


def _check(options: argparse.Namespace) -> None:
    for name, least in (("num_images", 1), ("steps", 1), ("batch_size", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name.replace('_', '-')} must be {least} or more")
    if options.keep is not None and not 1 <= options.keep <= options.num_images:
        raise UserError("--keep must be between 1 and --num-images")
    check_ray_options(options)
    if options.engine == "ray" and options.fast:
        raise UserError("--fast measures this machine; leave it away with --engine ray")
    if not 0 <= options.seed < 2**63 - options.num_images:
        raise UserError("--seed must be 0 or more, and below 2^63")
    if options.from_png and (options.prompts or options.prompts_file):
        raise UserError("--from-png has its prompt in the picture; give no other")


def _prompts(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The prompts to draw, and a line for each that is empty."""
    prompts = list(options.prompts)
    if options.prompts_file:
        try:
            lines = options.prompts_file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{options.prompts_file} is not UTF-8 text; save it as UTF-8") from error
        except OSError as error:
            raise UserError(f"cannot read {options.prompts_file}: {error.strerror}") from error
        prompts += [line.strip() for line in lines if line.strip()]
    if not prompts and not options.from_png:
        raise UserError('nothing to draw; give a prompt, as in: altdiffusion generate "蓝色背景上的猫"')
    empty = [f"prompt {i} is empty; say what to draw" for i, p in enumerate(prompts, start=1) if not p.strip()]
    if prompts and len(empty) == len(prompts):
        raise UserError(empty[0])
    return [prompt for prompt in prompts if prompt.strip()], empty


def _check_size(options: argparse.Namespace, pipeline: "AltDiffusionPipeline") -> None:
    from altdiffusion_clip.drawing import size_multiple

    multiple = size_multiple(pipeline)
    for name in ("height", "width"):
        value = getattr(options, name)
        if value is not None and (value < multiple or value % multiple):
            raise UserError(f"--{name} must be a multiple of {multiple} for this model")


def _made_fast(pipeline: "AltDiffusionPipeline", jobs: list["Settings"]) -> list["Settings"]:
    """Optimizes the pipeline, as it was when a picture is drawn again, and notes how."""
    from dataclasses import replace

    before = jobs[0].fast
    done = pipeline.optimize(half=before != "float32" if before else None)
    print(f"fast: {'; '.join(done.changes)}", file=sys.stderr)
    return [replace(job, fast=str(pipeline.unet.dtype).removeprefix("torch.")) for job in jobs]


def _here(pipeline: "AltDiffusionPipeline", jobs: list["Settings"]) -> Iterator[list["Image | None"]]:
    """Draws batches on this machine."""
    from altdiffusion_clip.drawing import draw_batch

    for job in jobs:
        yield draw_batch(pipeline, job)


def _on_ray(options: argparse.Namespace, jobs: list["Settings"]) -> Iterator[list["Image | None"]]:
    """Draws batches on a Ray cluster."""
    import io

    from PIL import Image

    from altdiffusion_clip.bulk.ray_engine import Model, connect, draw_on_ray

    cluster = cluster_of(options)
    connect(cluster)
    for pngs in draw_on_ray(jobs, Model((options.model,), options.dtype), cluster):
        yield [None if png is None else Image.open(io.BytesIO(png)) for png in pngs]


def _collect(
    drawn: Iterator[list["Image | None"]], results: "ResultsFolder", jobs: list["Settings"], wanted: set[int] | None
) -> list[str]:
    """Keeps the pictures of all jobs as they come, and returns a line for each that failed."""
    from dataclasses import replace

    from tqdm import tqdm

    failed = []
    total = len(wanted) if wanted else sum(len(job.batch_seeds) for job in jobs)
    with tqdm(total=total, desc="drawing", unit="picture", file=sys.stderr) as progress:
        for job, images in zip(jobs, drawn, strict=True):
            for seed, image in zip(job.batch_seeds, images, strict=True):
                if wanted is not None and seed not in wanted:
                    continue
                if image is None:
                    failed.append(f"{job.prompt!r}, seed {seed}: the picture is not a number; try --dtype float32")
                else:
                    results.add(image, replace(job, seed=seed))
                progress.update()
    return failed


def _report(options: argparse.Namespace, results: "ResultsFolder") -> None:
    from altdiffusion_clip.gallery import best_first, shown_score

    rows = best_first(results.rows)
    if options.json:
        for row in rows:
            print(json.dumps({**row, "file": str(results.folder / row["file"])}, ensure_ascii=False))
        return
    for prompt, group in itertools.groupby(rows, key=lambda row: row["prompt"]):
        print(prompt)
        for row in group:
            score = "" if row["score"] is None else f"{row['rank']:>3}  {shown_score(row['score'])}  "
            print(f"{score}{results.folder / row['file']}")
    if rows:
        print(f"all of them: {results.folder / 'index.html'}")
