"""`altdiffusion rerank`: orders pictures by how well they fit a prompt."""

import argparse
import csv
import io
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9
from altdiffusion_clip.commands.options import add_model_options, device_of, dtype_of, prepare_output
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from altdiffusion_clip.scoring import RankedImage

COLUMNS = ("rank", "cosine", "clip_score", "probability", "file")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "rerank",
        help="order pictures by how well they fit a prompt",
        description="Order pictures by how well they fit a prompt, best first. Pictures that cannot be read are "
        "listed on stderr, and the exit code is then 1.",
    )
    parser.add_argument("prompt", help="in any language of the model")
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE|FOLDER", help="pictures, or folders of them")
    parser.add_argument(
        "--model", default=EMOJI_M9, help="an AltCLIP: a folder, a FlagAI file, a hub id (default: %(default)s)"
    )
    parser.add_argument("--top", type=int, metavar="K", help="only the best K")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to a .csv, .tsv, .json or .jsonl file")
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE", help="write a picture of the ranking")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Ranks, prints, writes. Returns whether all pictures could be read."""
    if not options.prompt.strip():
        raise UserError("the prompt is empty; say what the pictures should show")
    if options.top is not None and options.top < 1:
        raise UserError("--top must be 1 or more")
    if options.batch_size < 1:
        raise UserError("--batch-size must be 1 or more")
    if options.output and options.output.suffix not in (".csv", ".tsv", ".json", ".jsonl"):
        raise UserError(f"--output {options.output}: the name must end in .csv, .tsv, .json or .jsonl")

    from altdiffusion_clip.commands.loading import load_scorer
    from altdiffusion_clip.gallery import write_contact_sheet
    from altdiffusion_clip.images import find_images

    files = find_images(options.paths)
    if not files:
        raise UserError(f"no pictures in {', '.join(map(str, options.paths))}")
    prepare_output()
    scorer = load_scorer(options.model, device_of(options.device), dtype_of(options.dtype))
    ranking = scorer.rank(options.prompt, list(files), batch_size=options.batch_size)

    rows = [_row(image) for image in ranking.images[: options.top]]
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    else:
        _print_table(rows)
    for image in ranking.broken:
        print(f"skipped {image}", file=sys.stderr)
    if options.output:
        _write(options.output, rows)
    if options.contact_sheet:
        write_contact_sheet(
            options.contact_sheet, [(Path(row["file"]), f"{row['rank']}  cosine {row['cosine']:.3f}") for row in rows]
        )
    return not ranking.broken


def _row(image: "RankedImage") -> dict[str, Any]:
    fields = asdict(image)
    return {
        "rank": fields["rank"],
        "file": fields["name"],
        "cosine": round(fields["cosine"], 6),
        "clip_score": round(fields["clip_score"], 4),
        "probability": round(fields["probability"], 6),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'rank':>4}  {'cosine':>7}  {'clip_score':>10}  {'probability':>11}  file")
    for row in rows:
        print(
            f"{row['rank']:>4}  {row['cosine']:>7.4f}  {row['clip_score']:>10.2f}  "
            f"{row['probability']:>11.4f}  {row['file']}"
        )


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    from altdiffusion_clip.files import write_text

    if path.suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    elif path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    write_text(path, text)
