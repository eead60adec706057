"""`altdiffusion inspect`: says what a checkpoint is and whether it is complete."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.commands.loading import opened

if TYPE_CHECKING:
    from altdiffusion_clip.checkpoints.inspection import Inspection


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "inspect",
        help="Tell what a checkpoint is and whether it is complete.",
        description="Tell what a checkpoint is, which languages it speaks, and which tensors are missing or "
        "surplus. If it is incomplete, or its text tower differs from that of --against, the exit code is 1.",
        examples=[
            "altdiffusion inspect altdiffusion-m9.ckpt --against BAAI/AltCLIP-m9",
            "altdiffusion inspect emoji-m18 --things",
        ],
    )
    parser.add_argument("source", metavar="SRC", help="A folder, a single file, a hub id, or emoji-m18.")
    parser.add_argument("--against", metavar="OTHER", help="Also compare the text tower with this model's.")
    parser.add_argument(
        "--config", type=Path, metavar="FOLDER", help="Folder with the configuration of a file of unpublished size."
    )
    parser.add_argument("--things", action="store_true", help="List what emoji-m18 can draw.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Inspects a checkpoint. Returns whether it is complete and, if another is named, has the same tower."""
    if options.things:
        return _list_things(options)

    from dataclasses import asdict

    from altdiffusion_clip.checkpoints.inspection import inspect
    from altdiffusion_clip.checkpoints.towers import first_difference
    from altdiffusion_clip.commands.options import prepare_output

    prepare_output()
    checkpoint = opened(options.source, options.config)
    report = inspect(checkpoint, options.source)
    result = {**asdict(report), "is_whole": report.is_whole}
    if options.against:
        other = opened(options.against, options.config)
        difference = first_difference(checkpoint.tensors["text_encoder"], other.tensors["text_encoder"])
        result |= {"against": str(other.path), "first_difference": difference}
    if options.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _print(report)
        if options.against:
            same = "is the same as" if difference is None else f"differs at {difference} from"
            print(f"tower      {same} that of {other.path}")
    return report.is_whole and result.get("first_difference") is None


def _list_things(options: argparse.Namespace) -> bool:
    from altdiffusion_clip.drawing.knowledge import things_of

    for thing in things_of(options.source):
        if options.json:
            print(json.dumps(thing, ensure_ascii=False))
        else:
            names = dict.fromkeys(name for key, name in thing.items() if key != "emoji")
            print(f"{thing['emoji']}  {', '.join(names)}")
    return True


def _print(report: "Inspection") -> None:
    print(f"{report.path}\nlayout     {report.layout}\nmodel      {report.model}\nlanguages  {report.languages}")
    print(f"EMA        {'also the moving average of the UNet' if report.has_ema else 'none'}")
    print(f"\n{'part':<13}{'tensors':>8}{'parameters':>13}{'MB':>9}  dtype")
    for part in report.parts:
        megabytes = part.nbytes / 1e6
        print(f"{part.name:<13}{part.tensors:>8}{part.parameters:>13,}{megabytes:>9,.1f}  {', '.join(part.dtypes)}")
    print()
    for part in report.parts:
        for what, names in (("missing", part.missing), ("misshapen", part.misshapen), ("surplus", part.surplus)):
            if names:
                rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
                print(f"{what:<11}{part.name}: {', '.join(names[:5])}{rest}")
    if report.is_whole:
        print("whole      nothing is missing")
