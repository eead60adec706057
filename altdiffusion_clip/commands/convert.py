"""`altdiffusion convert`: writes a checkpoint in another layout."""

import argparse
import sys
from pathlib import Path

from altdiffusion_clip.commands.options import DTYPES, dtype_of, prepare_output, writing
from altdiffusion_clip.errors import UserError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "convert",
        help="Write a checkpoint as a diffusers folder or a single file.",
        description="Write a checkpoint of any published layout as a diffusers folder or, if DST ends in .safetensors, "
        "as a single file that the WebUIs read. One tensor at a time is in memory, and DST is written whole or not at "
        "all.",
        examples=[
            "altdiffusion convert BAAI/AltDiffusion-m18 altdiffusion-m18.safetensors",
            "altdiffusion convert altdiffusion-m9.ckpt altdiffusion-m9/ --dtype float16 --variant fp16 "
            "--tokenizer BAAI/AltDiffusion-m9",
        ],
    )
    parser.add_argument("source", metavar="SRC", help="A folder, a single file, a hub id, or emoji-m18.")
    parser.add_argument("destination", metavar="DST", help="A folder, or a file that ends in .safetensors.")
    parser.add_argument("--dtype", choices=DTYPES, help="Precision of the weights (default: the source's).")
    parser.add_argument("--variant", metavar="NAME", help="Variant in the names of the weight files, such as fp16.")
    parser.add_argument("--ema", action="store_true", help="Take the moving average of the UNet's weights.")
    parser.add_argument(
        "--config", type=Path, metavar="FOLDER", help="Folder with the configuration of a file of unpublished size."
    )
    parser.add_argument("--tokenizer", metavar="WHERE", help="Folder or hub id with the tokenizer of a single file.")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Converts, with a progress bar on stderr."""
    from altdiffusion_clip.checkpoints.convert import convert

    prepare_output()
    with writing() as progress:
        try:
            done = convert(
                options.source,
                options.destination,
                dtype=dtype_of(options.dtype) if options.dtype else None,
                variant=options.variant,
                config=options.config,
                tokenizer=options.tokenizer,
                extract_ema=options.ema,
                progress=progress,
            )
        except OSError as error:
            raise UserError(f"cannot read {options.source}: {error}") from error
    print(f"{done.destination}: {done.layout}, {done.nbytes / 1e6:,.1f} MB")
    if done.left_out:
        print(f"left out: {', '.join(done.left_out)}", file=sys.stderr)
    return True
