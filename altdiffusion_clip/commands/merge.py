"""`altdiffusion merge`: gives other people's weights the languages of an AltDiffusion."""

import argparse

from altdiffusion_clip.commands.options import DTYPES, dtype_of, prepare_output, writing
from altdiffusion_clip.errors import UserError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "merge",
        help="give other people's weights the languages of an AltDiffusion",
        description="Add what the alignment of an AltDiffusion changed in Stable Diffusion's UNet to another model "
        "made from the same Stable Diffusion, and give it the multilingual text encoder. Nothing is trained; one "
        "tensor at a time is in memory, and OUT is written whole or not at all.",
    )
    parser.add_argument("--base", required=True, help="the Stable Diffusion that both were made from (1.4 for m2, m9)")
    parser.add_argument("--alt", required=True, help="the AltDiffusion")
    parser.add_argument("--target", required=True, help="what others made of the base")
    parser.add_argument("destination", metavar="OUT", help="a folder, or a file that ends in .safetensors")
    parser.add_argument("--strength", type=float, default=1.0, help="how much is added (default: 1)")
    parser.add_argument(
        "--what",
        choices=("all", "keys-and-values"),
        default="all",
        help="add the whole difference, or that of the layers that read the text (default: all)",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as they are in the target)")
    parser.add_argument("--tokenizer", metavar="WHERE", help="a folder or hub id with the tokenizer, for a single file")
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
