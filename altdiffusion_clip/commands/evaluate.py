"""`altdiffusion evaluate`: measures a model."""

import argparse

from altdiffusion_clip.commands import (
    evaluate_emoji,
    evaluate_generation,
    evaluate_retrieval,
    evaluate_zeroshot,
)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command and the kinds of measure."""
    parser = commands.add_parser("evaluate", help="Measure a model.", description="Measure a model.")
    what = parser.add_subparsers(dest="what", required=True, metavar="MEASURE", title="measures")
    for module in (evaluate_retrieval, evaluate_zeroshot, evaluate_generation, evaluate_emoji):
        module.add_parser(what)
