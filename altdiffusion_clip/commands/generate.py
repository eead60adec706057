"""`altdiffusion generate`: draws pictures from prompts and ranks them."""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.checkpoints.model_ids import DEFAULT_MODEL
from altdiffusion_clip.commands.judge_options import OWN, add_judge_option, panel_for
from altdiffusion_clip.commands.loading import load_pipeline
from altdiffusion_clip.commands.options import DTYPES, add_model_options, device_of, dtype_on, prepare_output
from altdiffusion_clip.commands.ray_options import add_ray_options, check_ray_options, cluster_of
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.schedulers import SCHEDULERS

if TYPE_CHECKING:
    import torch

    from altdiffusion_clip.drawing.calls import Drawer
    from altdiffusion_clip.drawing.folder import OutputFolder
    from altdiffusion_clip.drawing.generation import Engine
    from altdiffusion_clip.drawing.log import Row
    from altdiffusion_clip.drawing.packing import Packing
    from altdiffusion_clip.drawing.settings import Settings
    from altdiffusion_clip.drawing.tasks import Task
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline
    from altdiffusion_clip.sources.records import Record


SHOWN_WARNINGS = 5


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "generate",
        help="Draw pictures from prompts and rank them.",
        description="Draw pictures from prompts and rank them. The pictures, results.jsonl, contact-sheet.png and "
        "index.html are written to a folder. If a run stops, the same command draws what is missing. You can also add "
        "more prompts and seeds later.",
        examples=[
            'altdiffusion generate "蓝色背景上的猫" "a dog" --num-images 8 --output pictures',
            'altdiffusion generate "a fox" --negative-prompt blue --sampler "DPM++ 2M Karras" --steps 30',
            "altdiffusion generate --prompts-file table.csv --languages zh,en --seeds 0-99 --vary guidance=3,5",
            "altdiffusion generate --from-png pictures/000-seed0.png",
        ],
    )
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="What to draw, in any language of the model.")
    _add_table_options(parser.add_argument_group("tables and grids"))
    _add_picture_options(parser.add_argument_group("pictures"))
    _add_output_options(parser.add_argument_group("output"))
    judging = parser.add_argument_group("model and judge")
    judging.add_argument(
        "--model", default=DEFAULT_MODEL, help="A folder, a single file, or a hub id (default: %(default)s)."
    )
    add_judge_option(judging, "--scorer", OWN)
    judging.add_argument("--keep", type=int, metavar="K", help="Keep only the K best pictures of each prompt.")
    machine = parser.add_argument_group("speed and hardware")
    add_model_options(machine, several=True)
    machine.add_argument("--fast", action="store_true", help="Use the fastest settings for this machine.")
    machine.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="Pictures to draw at a time in half precision. In float32 each is drawn alone (default: 1).",
    )
    add_ray_options(parser)
    parser.set_defaults(run=run)


def _add_table_options(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--prompts-file",
        "--grid",
        metavar="FILE",
        help="A file with one prompt per line, or a table (.csv, .tsv, .jsonl, .parquet). The table may have the "
        "columns prompt, negative_prompt, seed, width, height, steps, guidance, scheduler, lora, image, mask, "
        "strength, id and language. Other columns are kept in the results. If you also give a PROMPT, it is filled "
        'in from each row: "a {job} at work".',
    )
    group.add_argument("--languages", default="", metavar="CODES", help="Columns with the prompt, such as zh,en,ar.")
    group.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="COLUMN=VALUES",
        help="Draw everything with each value, such as guidance=3,5,7. Can be repeated.",
    )
    group.add_argument("--encoding", default="", help="Encoding of the file if it is not UTF-8, such as gb18030.")


def _add_picture_options(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--negative-prompt", default="", metavar="TEXT", help="What to keep out of the pictures.")
    group.add_argument("--num-images", type=int, default=4, metavar="N", help="Pictures per prompt (default: 4).")
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        help="Seed of the first picture. The next picture has the next seed. Use -1 for random seeds (default: 0).",
    )
    group.add_argument("--seeds", help="All seeds, such as 0-99 or 1,5,9. Replaces --seed and --num-images.")
    group.add_argument("--steps", type=int, metavar="N", help="Denoising steps (default: the model's, or 20).")
    group.add_argument(
        "--guidance-scale",
        "--cfg-scale",
        type=float,
        metavar="SCALE",
        help="How closely to follow the prompt. 1 turns guidance off (default: the model's, or 7.5).",
    )
    group.add_argument(
        "--scheduler",
        "--sampler",
        default="",
        metavar="NAME",
        help=f"One of {', '.join(SCHEDULERS)}; or the WebUIs' name of it, such as 'DPM++ 2M Karras' (default: the "
        "model's own).",
    )
    group.add_argument("--width", type=int, metavar="PIXELS", help="Width (default: the model's).")
    group.add_argument("--height", type=int, metavar="PIXELS", help="Height (default: the model's).")
    group.add_argument("--long-prompts", action="store_true", help="Read up to 308 tokens of a prompt, not 77.")
    group.add_argument(
        "--from-png",
        type=Path,
        metavar="FILE",
        help="Draw a picture again from the settings in its PNG, written by this program or by a WebUI.",
    )


def _add_output_options(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--output",
        type=Path,
        default=Path("altdiffusion-output"),
        metavar="DIR",
        help="Folder for the pictures (default: %(default)s).",
    )
    group.add_argument("--dry-run", action="store_true", help="Draw nothing. Print how many pictures and how long.")
    group.add_argument("--overwrite", action="store_true", help="Draw existing pictures again.")
    group.add_argument("--pack", choices=("tar", "parquet"), help="Pack finished pictures into tar or Parquet files.")
    group.add_argument("--pack-to", metavar="PLACE", help="Folder or URL for the packs (default: the --output folder).")
    group.add_argument("--pack-size", type=int, default=1000, metavar="N", help="Pictures per pack (default: 1000).")
    group.add_argument(
        "--shard",
        metavar="K/N",
        help="Draw share K of N, while other runs on the same folder draw the rest. When all are done, run the "
        "command without --shard: it merges the results and writes the pages.",
    )
    group.add_argument("--json", action="store_true", help="Print one JSON object per picture and nothing else.")


def run(options: argparse.Namespace) -> bool:
    """Draws, ranks, writes. Returns whether all pictures were drawn."""
    _check(options)
    prepare_output()

    from altdiffusion_clip.drawing.calls import Drawer, size_multiple
    from altdiffusion_clip.drawing.folder import OutputFolder
    from altdiffusion_clip.drawing.generation import (
        batches_of,
        check_base,
        draw_into,
        engine_again,
        local_engine,
        missing_of,
    )
    from altdiffusion_clip.drawing.tasks import Plan, shard_of, share_of, tasks_of, variations_of

    again = _again(options) if options.from_png else None
    records, empty = (lambda: iter(()), []) if again else _records(options)
    base = again or _settings(options)
    pipelines = [load_pipeline(options.model, device, dtype_on(device, options.dtype)) for device in _devices(options)]
    multiple = size_multiple(pipelines[0])
    check_base(base, multiple)
    panel = panel_for(options, pipelines[0])
    if options.keep and panel is None:
        raise UserError("--keep needs a judge to tell the best; name one with --judge")
    if options.fast:
        base = _made_fast(pipelines, base)
    plan = Plan(base, _seeds(options), _languages(options), _templates(options), variations_of(options.vary), multiple)
    shard = shard_of(options.shard) if options.shard else None
    output = OutputFolder(options.output, panel, options.keep, options.overwrite, shard, _packing(options))

    def tasks() -> "Iterator[Task]":
        if again:
            return iter([_task_again(again)])
        everything = tasks_of(records(), plan, numbers)
        return everything if shard is None else share_of(everything, *shard)

    with output.locked():
        numbers = output.numbers()
        output.plan(tasks())
        missing = missing_of(batches_of(tasks(), options.batch_size), output)
        if options.dry_run:
            return _dry_run(options, output, missing, Drawer(pipelines[0]))
        engine = local_engine([Drawer(each) for each in pipelines])
        if again:
            engine = engine_again(Drawer(pipelines[0]))
        elif options.engine == "ray":
            engine = _on_ray(options)
        is_here = options.engine == "local" and all(each.device.type == "cpu" for each in pipelines)
        rows = draw_into(output, missing, engine, overlaps=not is_here)
        failed = [*empty, *_collect(options, output, rows)]
        if not again and not output.planned:
            raise UserError("there is no row to draw")
    _report(options, output)
    for message in failed:
        print(f"failed {message}", file=sys.stderr)
    return not failed


def _packing(options: argparse.Namespace) -> "Packing | None":
    from altdiffusion_clip.drawing.packing import Packing

    if options.pack is None:
        if options.pack_to:
            raise UserError("--pack-to is for packed pictures; add --pack tar or --pack parquet")
        return None
    return Packing(options.pack, options.pack_to or str(options.output), options.pack_size)


def _settings(options: argparse.Namespace) -> "Settings":
    """The settings of rows that do not set their own."""
    from altdiffusion_clip.drawing.settings import Settings, usual_guidance_scale, usual_steps

    usual = usual_guidance_scale(options.model)
    return Settings(
        prompt="",
        seed=0,
        batch_seeds=(),
        model=options.model,
        negative_prompt=options.negative_prompt,
        num_inference_steps=usual_steps(options.model) if options.steps is None else options.steps,
        guidance_scale=usual if options.guidance_scale is None else options.guidance_scale,
        height=options.height,
        width=options.width,
        device=str(_devices(options)[0]),
        dtype=options.dtype,
        prompt_windows=4 if options.long_prompts else 1,
        scheduler=options.scheduler,
    )


def _again(options: argparse.Namespace) -> "Settings":
    """The settings that a picture was drawn with."""
    from altdiffusion_clip.drawing.png_text import settings_from
    from altdiffusion_clip.drawing.settings import usual_guidance_scale

    settings, left = settings_from(options.from_png, options.model, usual_guidance_scale(options.model))
    if left:
        print(f"{options.from_png}: not taken: {'; '.join(left)}", file=sys.stderr)
    if settings.dtype not in DTYPES:
        raise UserError(f"the settings in {options.from_png} are damaged (dtype {settings.dtype!r})")
    if settings.strength is not None and not settings.image:
        raise UserError(f"{options.from_png} was made from another picture, which its settings do not contain")
    options.model, options.device, options.dtype = settings.model, settings.device, settings.dtype
    options.fast = bool(settings.fast)
    return settings


def _task_again(settings: "Settings") -> "Task":
    from altdiffusion_clip.drawing.tasks import Task

    return Task(f"000-seed{settings.seed}", "000", settings)


def _check(options: argparse.Namespace) -> None:
    for name, least in (("num_images", 1), ("steps", 1), ("batch_size", 1), ("pack_size", 1)):
        given = getattr(options, name)
        if given is not None and given < least:
            raise UserError(f"--{name.replace('_', '-')} must be {least} or more")
    if options.keep is not None and not 1 <= options.keep <= len(_seeds(options)):
        raise UserError("--keep must be between 1 and --num-images, or the number of --seeds")
    check_ray_options(options)
    if options.engine == "ray" and options.fast:
        raise UserError("--fast measures only this machine; omit it with --engine ray")
    if not -1 <= options.seed < 2**63 - options.num_images:
        raise UserError("--seed must be 0 or more and below 2^63, or -1 for random ones")
    if options.seeds and options.seed:
        raise UserError("--seeds and --seed both set the seeds; use only one of them")
    if options.from_png and (options.prompts or options.prompts_file):
        raise UserError("with --from-png the prompt comes from the picture; give no other")


def _records(options: argparse.Namespace) -> tuple["Callable[[], Iterator[Record | str]]", list[str]]:
    """A function that gives the rows, and one line for each empty prompt on the command line."""
    from altdiffusion_clip.drawing.generation import with_places
    from altdiffusion_clip.sources.records import is_table, read_records

    file = options.prompts_file
    if file and is_table(file):
        _check_columns(options, file)
        return lambda: with_places(read_records(file, options.encoding), Path(file).parent), []
    if options.languages:
        raise UserError("--languages names columns of a table; give one with --prompts-file")
    prompts = [*options.prompts, *(_lines(Path(file), options.encoding) if file else [])]
    if not prompts:
        raise UserError('nothing to draw; give a prompt, as in: altdiffusion generate "蓝色背景上的猫"')
    empty = [f"prompt {i} is empty; say what to draw" for i, p in enumerate(prompts, start=1) if not p.strip()]
    if len(empty) == len(prompts):
        raise UserError(empty[0])
    rows: list[Record | str] = [{"prompt": prompt} for prompt in prompts if prompt.strip()]
    return lambda: iter(rows), empty


def _lines(file: Path, encoding: str) -> list[str]:
    from altdiffusion_clip.sources.texts import check_encoding, decode

    if encoding:
        check_encoding(encoding)
    try:
        lines = decode(file.read_bytes(), encoding).splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text; save it as UTF-8, or name its --encoding") from error
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    return [line.strip() for line in lines if line.strip()]


def _check_columns(options: argparse.Namespace, file: str) -> None:
    """Checks that the first row has the columns that prompts come from."""
    from altdiffusion_clip.sources.records import read_records
    from altdiffusion_clip.sources.texts import check_encoding

    if options.encoding:
        check_encoding(options.encoding)
    first = next((row for row in read_records(file, options.encoding) if not isinstance(row, str)), None)
    if first is None:
        raise UserError(f"{file} has no row that could be read")
    wanted = _languages(options) or ([] if options.prompts else ["prompt"])
    lacking = [name for name in wanted if name not in first]
    if lacking:
        there = ", ".join(map(str, first))
        raise UserError(f"{file} has the columns {there}, and no {lacking[0]}; name others with --languages")


def _languages(options: argparse.Namespace) -> tuple[str, ...]:
    return tuple(dict.fromkeys(code.strip() for code in options.languages.split(",") if code.strip()))


def _templates(options: argparse.Namespace) -> list[str]:
    """Prompts from the command line that are filled in from a table."""
    from altdiffusion_clip.sources.records import is_table

    is_filled = options.prompts_file and is_table(options.prompts_file)
    return [prompt for prompt in options.prompts if prompt.strip()] if is_filled else []


def _seeds(options: argparse.Namespace) -> list[int]:
    from altdiffusion_clip.drawing.tasks import RANDOM_SEED, seeds_of

    if options.seeds:
        return seeds_of(options.seeds)
    if options.seed == RANDOM_SEED:
        return [RANDOM_SEED] * options.num_images
    return list(range(options.seed, options.seed + options.num_images))


def _devices(options: argparse.Namespace) -> list["torch.device"]:
    return [device_of(name.strip()) for name in options.device.split(",")]


def _made_fast(pipelines: "Sequence[AltDiffusionPipeline]", base: "Settings") -> "Settings":
    """Optimizes the pipelines and records how; to draw a picture again, as they were optimized then."""
    from dataclasses import replace

    for pipeline in pipelines:
        done = pipeline.optimize(half=base.fast != "float32" if base.fast else None)
        print(f"fast: {'; '.join(done.changes)}", file=sys.stderr)
    return replace(base, fast=str(pipelines[0].unet.dtype).removeprefix("torch."))


def _on_ray(options: argparse.Namespace) -> "Engine":
    """Draws batches on a Ray cluster."""
    from altdiffusion_clip.bulk.ray_engine import Model, connect, ray_engine

    cluster = cluster_of(options)
    connect(cluster)
    return ray_engine(Model((options.model,), options.dtype), cluster)


def _collect(options: argparse.Namespace, output: "OutputFolder", rows: "Iterator[Row]") -> list[str]:
    """Waits for all pictures and returns one line for each that failed."""
    from tqdm import tqdm

    failed: dict[str, str] = {}
    with tqdm(total=output.planned, desc="drawing", unit="picture", file=sys.stderr) as progress:
        for row in rows:
            if row["error"]:
                failed[row["name"]] = f"{row['prompt']!r}, seed {row['seed']}: {row['error']}"
            progress.update(output.done - progress.n)
        progress.update(output.done - progress.n)  # the last ones existed
    return list(failed.values())


def _dry_run(
    options: argparse.Namespace, output: "OutputFolder", missing: "Iterator[list[Task]]", drawer: "Drawer"
) -> bool:
    """Prints what a run would do. Returns whether all rows can be drawn."""
    from altdiffusion_clip.drawing.estimate import estimate_of

    estimate = estimate_of(output, missing, drawer)
    print(estimate.said(options.json))
    return not estimate.wrong


def _report(options: argparse.Namespace, output: "OutputFolder") -> None:
    from altdiffusion_clip.drawing.gallery import shown_score

    rows = [row for row in output.rows() if row["file"]]
    unknown = list(dict.fromkeys((row["prompt"], row["warning"]) for row in rows if row.get("warning")))
    for prompt, warning in unknown[:SHOWN_WARNINGS]:
        print(f"{prompt}: {warning}", file=sys.stderr)
    if len(unknown) > SHOWN_WARNINGS:
        print(f"and {len(unknown) - SHOWN_WARNINGS} more such prompts; see `warning` in the results", file=sys.stderr)
    if options.json:
        for row in rows:
            print(json.dumps({**row, "file": str(output.folder / row["file"])}, ensure_ascii=False))
        return
    for prompt, group in itertools.groupby(rows, key=lambda row: row["prompt"]):
        print(prompt)
        for row in group:
            score = "" if row["score"] is None else f"{row['rank']:>3}  {shown_score(row['score'])}  "
            print(f"{score}{output.folder / row['file']}")
    if rows:
        print(f"all of them: {output.folder / 'index.html'}")
