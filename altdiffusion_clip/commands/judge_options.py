"""Options of the commands that score: which judges to use, and where to keep their vectors."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.checkpoints.model_ids import DEFAULT_MODEL
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from altdiffusion_clip.judges.cache import VectorCache
    from altdiffusion_clip.judges.encoding import Bench
    from altdiffusion_clip.judges.ensembles import Panel
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline

OWN = "own"
"""The judge that comes with a model."""


def add_judge_option(parser: "argparse._ActionsContainer", older: str = "", default: str = DEFAULT_MODEL) -> None:
    """Adds --judge, which can be repeated.

    Args:
        parser: of the command, or a group of its options.
        older: another name of the option.
        default: the judge if none is given; `OWN` for the one of the model that draws.
    """
    shown = "own, the model's; none for no judge" if default == OWN else default
    parser.add_argument(
        "--judge",
        *([older] if older else []),
        action="append",
        default=[],
        dest="judges",
        metavar="JUDGE",
        help="What scores the pictures: the hub id or folder of an AltCLIP, CLIP, Chinese-CLIP, SigLIP or "
        "ImageReward; open_clip:ARCHITECTURE@WEIGHTS; python:FILE.py:FUNCTION; or another form listed in "
        f"docs/judges.md. Can be repeated; the first judge decides (default: {shown}).",
    )
    parser.set_defaults(default_judge=default)


def add_long_text_option(parser: "argparse._ActionsContainer") -> None:
    """Adds --long-text."""
    parser.add_argument(
        "--long-text",
        choices=("truncate", "window-mean", "window-max", "full"),
        default="truncate",
        help="How to read a text that has more tokens than the judge was trained with: truncate it; split it and take "
        "the mean vector (window-mean) or the best score (window-max); or read it in full, which AltCLIP can do up to "
        "512 tokens (default: truncate).",
    )


def judges_of(options: argparse.Namespace) -> list[str]:
    """The judges that were named, or the default one."""
    return options.judges or [options.default_judge]


def panel_for(options: argparse.Namespace, pipeline: "AltDiffusionPipeline") -> "Panel | None":
    """The judges of a pipeline's pictures; None if none was named and the pipeline has none."""
    from altdiffusion_clip.commands.loading import brings_scorer
    from altdiffusion_clip.judges.names import load_panel

    names = judges_of(options)
    if names == ["none"]:
        return None
    if OWN in names and not brings_scorer(options.model):
        if options.judges:
            raise UserError(f"{options.model} has no judge of its own; name another with --judge")
        print("this model brings no judge, so the pictures are not ranked (--judge names one)", file=sys.stderr)
        return None
    places = [f"{OWN}={options.model}" if name == OWN else name for name in names]
    return load_panel(places, pipeline.device, pipeline.unet.dtype, pipeline)


def add_cache_options(parser: "argparse._ActionsContainer", is_kept: bool = True) -> None:
    """Adds --cache, --no-cache and --vectors.

    Args:
        parser: of the command.
        is_kept: keep vectors unless the user says otherwise.
    """
    where = "$ALTDIFFUSION_CACHE, or the system's cache folder"
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="Folder that keeps the vectors of texts and pictures for the next run, up to 4 GB "
        f"(default: {where if is_kept else 'none are kept'}).",
    )
    if is_kept:
        parser.add_argument("--no-cache", action="store_true", help="Keep no vectors.")
    parser.set_defaults(is_cached=is_kept)
    parser.add_argument(
        "--vectors",
        action="append",
        default=[],
        type=Path,
        metavar="FILE|FOLDER",
        help="Use vectors that `altdiffusion embed` or `score --embeddings` has written. Pictures are matched by path.",
    )


def bench_for(options: argparse.Namespace, panel: "Panel", batch_size: int) -> "Bench":
    """A bench for a panel, with the cache and the vectors that the options name."""
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
    """A function that makes a cache from a judge's fingerprint; None if nothing is kept."""
    from altdiffusion_clip.judges.cache import VectorCache

    folder = cache_of(options)
    return None if folder is None else lambda fingerprint: VectorCache(folder, fingerprint)
