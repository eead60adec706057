"""Options of the commands that score: which judges, and where their vectors are kept."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.checkpoints.model_ids import EMOJI_M9
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from altdiffusion_clip.judges.cache import VectorCache
    from altdiffusion_clip.judges.encoding import Bench
    from altdiffusion_clip.judges.ensembles import Panel
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline

OWN = "own"
"""The judge that a model brings with it."""

JUDGES = (
    "emoji-m9; a folder or hub id of an AltCLIP, CLIP, Chinese-CLIP or SigLIP; TEXT+VISION for Taiyi's or M-CLIP's "
    "text tower with a CLIP; open_clip:ARCHITECTURE@WEIGHTS; python:FILE.py:FUNCTION; logits:A,B, zscores:A,B or "
    "ranks:A,B for several together. NAME=JUDGE shows it under a name"
)
"""What a user may name."""


def add_judge_option(parser: argparse.ArgumentParser, older: str = "", default: str = EMOJI_M9) -> None:
    """Adds --judge, which may be given several times.

    Args:
        parser: of the command.
        older: another name of the option.
        default: where none is given; `OWN` for that of the model that draws.
    """
    shown = "the model's own, if it brings one; `none` for none" if default == OWN else default
    parser.add_argument(
        "--judge",
        *([older] if older else []),
        action="append",
        default=[],
        dest="judges",
        metavar="JUDGE",
        help=f"{JUDGES}. Of several, each named so, the first decides (default: {shown})",
    )
    parser.set_defaults(default_judge=default)


def add_long_text_option(parser: argparse.ArgumentParser) -> None:
    """Adds --long-text."""
    parser.add_argument(
        "--long-text",
        choices=("truncate", "window-mean", "window-max", "full"),
        default="truncate",
        help="of texts of more tokens than the judge reads: cut them (default); read them in parts, of which the mean "
        "vector or the best score counts; or whole, which AltCLIP can up to 512 tokens",
    )


def judges_of(options: argparse.Namespace) -> list[str]:
    """The judges that were named, or the one that is meant where none was."""
    return options.judges or [options.default_judge]


def panel_for(options: argparse.Namespace, pipeline: "AltDiffusionPipeline") -> "Panel | None":
    """The judges of a pipeline's pictures; None if it brings none and none was named."""
    from altdiffusion_clip.commands.loading import brings_scorer
    from altdiffusion_clip.judges.names import load_panel

    names = judges_of(options)
    if names == ["none"]:
        return None
    if OWN in names and not brings_scorer(options.model):
        if options.judges:
            raise UserError(f"{options.model} brings no judge of its own; name another with --judge")
        print("this model brings no judge, so the pictures are not ranked (--judge names one)", file=sys.stderr)
        return None
    places = [f"{OWN}={options.model}" if name == OWN else name for name in names]
    return load_panel(places, pipeline.device, pipeline.unet.dtype, pipeline)


def add_cache_options(parser: argparse.ArgumentParser, is_kept: bool = True) -> None:
    """Adds --cache, --no-cache and --vectors.

    Args:
        parser: of the command.
        is_kept: vectors are kept unless the user says otherwise.
    """
    where = "$ALTDIFFUSION_CACHE, or altdiffusion-clip where the system has its caches"
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="where vectors of texts and pictures are kept, by judge and content, 4 GB at most "
        f"(default: {where if is_kept else 'they are not kept'})",
    )
    if is_kept:
        parser.add_argument("--no-cache", action="store_true", help="keep no vectors")
    parser.set_defaults(is_cached=is_kept)
    parser.add_argument(
        "--vectors",
        action="append",
        default=[],
        type=Path,
        metavar="FILE|FOLDER",
        help="vectors that are there already, of altdiffusion embed or score --embeddings; pictures are known by path",
    )


def bench_for(options: argparse.Namespace, panel: "Panel", batch_size: int) -> "Bench":
    """A bench of a panel, with the cache and the vectors that were named."""
    from altdiffusion_clip.judges.embedding_files import read_embeddings
    from altdiffusion_clip.judges.encoding import Bench

    bench = Bench(panel, batch_size, cache_by(options))
    for place in options.vectors:
        files = sorted(place.glob("part-*.safetensors")) if place.is_dir() else [place]
        if not files:
            raise UserError(f"{place} has no vectors; altdiffusion score --embeddings writes them beside its shards")
        for file in files:
            bench.take(file, read_embeddings(file))
    return bench


def cache_of(options: argparse.Namespace) -> Path | None:
    """The folder for vectors, or None."""
    from altdiffusion_clip.judges.cache import default_cache

    if not options.is_cached:
        return options.cache
    return None if options.no_cache else options.cache or default_cache()


def cache_by(options: argparse.Namespace) -> "Callable[[str], VectorCache] | None":
    """What makes the cache of a judge's fingerprint; None if nothing is kept."""
    from altdiffusion_clip.judges.cache import VectorCache

    folder = cache_of(options)
    return None if folder is None else lambda fingerprint: VectorCache(folder, fingerprint)
