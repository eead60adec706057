"""`altdiffusion rerank`: orders pictures by how well they fit a prompt."""

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from altdiffusion_clip.commands.judge_options import (
    add_cache_options,
    add_judge_option,
    add_long_text_option,
    bench_for,
    judges_of,
)
from altdiffusion_clip.commands.options import add_model_options, device_and_dtype, prepare_output
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from altdiffusion_clip.scores import RankedImage


FEW = 500
"""With fewer pictures than this, starting worker processes does not pay."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "rerank",
        help="Sort pictures by how well they match a prompt.",
        description="Sort pictures by how well they match a prompt, best first. Pictures that cannot be read are "
        "listed on stderr, and the exit code is then 1.",
        examples=[
            'altdiffusion rerank "一只猫" pictures/ --top 3',
            'altdiffusion rerank "a cat" *.png --judge BAAI/AltCLIP-m18 --output ranking.csv',
        ],
    )
    parser.add_argument("prompt", metavar="PROMPT", help="The prompt, in any language of the judge.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE|FOLDER", help="Pictures, or folders of pictures.")
    add_judge_option(parser, "--model")
    parser.add_argument("--top", type=int, metavar="K", help="Show only the best K.")
    parser.add_argument("--output", type=Path, metavar="FILE", help="Write a .csv, .tsv, .json or .jsonl file.")
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE", help="Write a picture of the ranking.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object per line, not a table.")
    add_long_text_option(parser)
    speed = parser.add_argument_group("speed and hardware")
    speed.add_argument("--batch-size", type=int, default=32, metavar="N", help="Pictures at a time (default: 32).")
    speed.add_argument(
        "--exact", action="store_true", help="Decode large JPEGs in full. Without it scores differ by about 0.001."
    )
    speed.add_argument("--workers", type=int, metavar="N", help="Decoding processes (default: all cores but two).")
    add_cache_options(speed)
    add_model_options(speed)
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

    from altdiffusion_clip.drawing.gallery import write_contact_sheet
    from altdiffusion_clip.images import find_images
    from altdiffusion_clip.judges.judging import ranking
    from altdiffusion_clip.judges.names import load_panel
    from altdiffusion_clip.judges.pictures import Workers, default_workers
    from altdiffusion_clip.sources.pictures import Located

    files = find_images(options.paths)
    if not files:
        raise UserError(f"no pictures in {', '.join(map(str, options.paths))}")
    prepare_output()
    device, dtype = device_and_dtype(options)
    panel = load_panel(judges_of(options), device, dtype, long_text=options.long_text)
    bench = bench_for(options, panel, options.batch_size)
    names = [str(file) for file in files]
    count = default_workers(device.type != "cpu") if options.workers is None else options.workers
    # A process takes seconds to start. Two threads read some hundreds of pictures in that time.
    with Workers(bench.preparation(options.exact), count if len(files) > FEW else 0) as workers:
        ranked = ranking(options.prompt, [Located(name) for name in names], names, [bench], workers)

    rows = [_row(image) for image in ranked.images[: options.top]]
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    else:
        _print_table(rows)
    for image in ranked.broken:
        print(f"skipped {image}", file=sys.stderr)
    if options.output:
        _write(options.output, rows)
    if options.contact_sheet:
        write_contact_sheet(
            options.contact_sheet,
            [
                (Path(image.name), f"{image.rank}  {image.measure} {image.score:.3f}")
                for image in ranked.images[: len(rows)]
            ],
        )
    return not ranked.broken


def _row(image: "RankedImage") -> dict[str, Any]:
    return {"rank": image.rank, "file": image.name, **image.as_dict()}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: each further judge has its own column, and the file comes last."""
    others = row.get("judges", {})
    own = {key: value for key, value in row.items() if key not in ("file", "judges")}
    return {**own, **others, "file": row["file"]}


def _print_table(rows: list[dict[str, Any]]) -> None:
    flat = [_flat(row) for row in rows]
    names = list(flat[0]) if flat else ["rank", "file"]
    widths = [max(len(name), 7) for name in names[:-1]]
    print("  ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=False)) + f"  {names[-1]}")
    for row in flat:
        *numbers, file = row.values()
        shown = [
            f"{number:>{w}.4f}" if isinstance(number, float) else f"{number:>{w}}"
            for number, w in zip(numbers, widths, strict=True)
        ]
        print("  ".join(shown) + f"  {file}")


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    from altdiffusion_clip.files import write_text

    if path.suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    elif path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        flat = [_flat(row) for row in rows]
        buffer = io.StringIO()
        names = list(flat[0]) if flat else ["rank", "file"]
        writer = csv.DictWriter(buffer, names, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(flat)
        text = buffer.getvalue()
    write_text(path, text)
