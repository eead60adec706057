"""`altdiffusion merge`: gives a Stable Diffusion style the languages of an AltDiffusion."""

import argparse

from altdiffusion_clip.commands.options import DTYPES, dtype_of, prepare_output, writing
from altdiffusion_clip.errors import UserError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "merge",
        help="Add an AltDiffusion's languages to another Stable Diffusion model.",
        description="Add what an AltDiffusion's alignment changed in Stable Diffusion's UNet to another model made "
        "from the same Stable Diffusion, and give that model the multilingual text encoder. Nothing is trained. "
        "One tensor at a time is in memory, and OUT is written whole or not at all.",
        examples=[
            "altdiffusion merge --base CompVis/stable-diffusion-v1-4 --alt BAAI/AltDiffusion-m9 "
            "--target community.safetensors merged/"
        ],
    )
    parser.add_argument(
        "--base", required=True, help="The Stable Diffusion that both were made from: version 1.4 for m2 and m9."
    )
    parser.add_argument("--alt", required=True, help="The AltDiffusion.")
    parser.add_argument("--target", required=True, help="The model to change.")
    parser.add_argument("destination", metavar="OUT", help="A folder, or a file that ends in .safetensors.")
    parser.add_argument("--strength", type=float, default=1.0, help="How much of the change to add (default: 1).")
    parser.add_argument(
        "--what",
        choices=("all", "keys-and-values"),
        default="all",
        help="Add the whole change, or only that of the layers that read the text (default: all).",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="Precision of the weights (default: the target's).")
    parser.add_argument(
        "--tokenizer",
        metavar="WHERE",
        help="Folder or hub id with the tokenizer, if the AltDiffusion is a single file.",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Merges, with a progress bar on stderr."""
    from altdiffusion_clip.checkpoints.merge import merge

    prepare_output()
    with writing() as progress:
        try:
            done = merge(
                options.base,
                options.alt,
                options.target,
                options.destination,
                strength=options.strength,
                what=options.what,
                dtype=dtype_of(options.dtype) if options.dtype else None,
                tokenizer=options.tokenizer,
                progress=progress,
            )
        except OSError as error:
            raise UserError(f"cannot read a model: {error}") from error
    print(f"{done.destination}: {done.layout}, {done.nbytes / 1e6:,.1f} MB")
    return True
