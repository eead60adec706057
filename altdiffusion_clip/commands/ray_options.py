"""Options of the commands that also run on a Ray cluster."""

import argparse
from typing import TYPE_CHECKING

from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from altdiffusion_clip.bulk.ray_engine import Cluster


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Adds --engine, --address, --actors, --gpus-per-actor and --cpus-per-actor."""
    ray = parser.add_argument_group("Ray clusters")
    ray.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="This machine, or a Ray cluster (default: local)."
    )
    ray.add_argument(
        "--address", default="", help="Address of the cluster, such as auto or ray://head:10001 (default: start one)."
    )
    ray.add_argument("--actors", type=int, default=1, metavar="N", help="Most actors at a time (default: 1).")
    ray.add_argument("--gpus-per-actor", type=float, default=0, metavar="N", help="GPUs per actor (default: 0).")
    ray.add_argument("--cpus-per-actor", type=float, default=1, metavar="N", help="CPU cores per actor (default: 1).")


def check_ray_options(options: argparse.Namespace) -> None:
    """Rejects numbers that make no sense for a cluster.

    Raises:
        UserError: it names the first of them.
    """
    if options.actors < 1:
        raise UserError("--actors must be 1 or more")
    if options.gpus_per_actor < 0 or options.cpus_per_actor < 0:
        raise UserError("--gpus-per-actor and --cpus-per-actor must be 0 or more")
    if options.address and options.engine != "ray":
        raise UserError("--address is of a Ray cluster; add --engine ray")


def cluster_of(options: argparse.Namespace) -> "Cluster":
    """The cluster that the options describe."""
    from altdiffusion_clip.bulk.ray_engine import Cluster

    return Cluster(options.address, options.actors, options.gpus_per_actor, options.cpus_per_actor)
