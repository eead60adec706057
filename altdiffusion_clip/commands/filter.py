"""`altdiffusion filter`: keeps the rows of data sets whose pictures and texts fit."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from altdiffusion_clip.commands.options import prepare_output
from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    from altdiffusion_clip.bulk.filtering import Counts


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "filter",
        help="keep the rows of data sets whose pictures and texts fit",
        description="Keep the rows that altdiffusion score finds to fit. Writes them to kept/, in files like their "
        "sources, and all others with a reason to rejected/, as JSON lines. Killed at any moment, the same command "
        "goes on. The exit code is 1 if a source could not be read to its end or has rows that are not scored yet.",
        epilog="Cosines of different languages are not comparable: one threshold for all keeps more of the languages "
        "that the judge knows best. --by language gives each its own.",
    )
    parser.add_argument("scores", type=Path, metavar="SCORES", help="a folder of altdiffusion score")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for the rows")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page with histograms by language and pictures at quantiles"
    )
    parser.add_argument(
        "--top",
        action="append",
        default=[],
        metavar="[LANGUAGE=][JUDGE:]N",
        help="the best rows: a share, as 30%%, or a number",
    )
    parser.add_argument(
        "--min", action="append", default=[], metavar="[LANGUAGE=][JUDGE:]SCORE", help="rows that reach a score"
    )
    parser.add_argument(
        "--shuffled",
        action="append",
        default=[],
        metavar="[LANGUAGE=]SHARE",
        help="rows above so much, as 99%%, of what pictures get with texts of others (needs score --embeddings)",
    )
    parser.add_argument(
        "--near-duplicates",
        type=float,
        metavar="COSINE",
        help="of pictures that are so much alike keep the one with the best score, as 0.95 (needs score --embeddings)",
    )
    parser.add_argument("--by", choices=("language",), help="shares and numbers are of each language's rows")
    parser.add_argument("--any", action="store_true", help="one of several criteria is enough (default: all)")
    parser.add_argument("--attempts", type=int, default=5, help="to read what a passing fault keeps back (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object at the end instead of a sentence")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Filters. Returns whether every row was decided."""
    from tqdm import tqdm

    from altdiffusion_clip.bulk.filter_page import write_filter_page
    from altdiffusion_clip.bulk.filtering import NOT_SCORED, Criterion, Filter, Scores, run_filter, thresholds_of
    from altdiffusion_clip.sources.retries import Retries

    if options.attempts < 1:
        raise UserError("--attempts must be 1 or more")
    criteria = [Criterion.parse("top", given) for given in options.top]
    criteria += [Criterion.parse("min", given) for given in options.min]
    criteria += [Criterion.parse("shuffled", given) for given in options.shuffled]
    alike = options.near_duplicates
    if alike is not None and not 0 < alike <= 1:
        raise UserError(f"--near-duplicates {alike}: give a cosine above 0 and up to 1, as 0.95")
    has_rules = bool(criteria) or alike is not None
    if not has_rules and not options.html:
        raise UserError("nothing says what is kept; give --top, --min, --shuffled or --near-duplicates")
    if has_rules and not options.output and not options.html:
        raise UserError("the rows that are kept need a place; give --output DIR")
    prepare_output()
    wanted = Filter(tuple(criteria), options.by == "language", options.any, alike)
    retries = Retries(options.attempts)
    if options.html:
        scores = Scores(options.scores)
        judge = criteria[0].column if criteria else ""
        write_filter_page(options.html, scores, judge, thresholds_of(scores, wanted), retries)
    if not has_rules or not options.output:
        return True
    with tqdm(desc="filtering", unit="row", unit_scale=True, file=sys.stderr) as bar:
        try:
            counts, unfinished = run_filter(options.scores, options.output, wanted, retries, bar.update)
        except OSError as error:
            raise UserError(f"cannot write to {options.output}: {error.strerror or error}") from error
    _print(options, counts, unfinished)
    return not unfinished and not counts.rejected[NOT_SCORED]


def _print(options: argparse.Namespace, counts: "Counts", unfinished: dict[str, str]) -> None:
    if options.json:
        left = [{"source": source, "reason": reason} for source, reason in unfinished.items()]
        row = {"folder": str(options.output), "rows": counts.rows, "kept": counts.kept}
        print(json.dumps({**row, "rejected": dict(counts.rejected), "unfinished": left}, ensure_ascii=False))
        return
    rejected = "".join(f", {count} rejected: {reason}" for reason, count in counts.rejected.most_common())
    print(f"{options.output}: {counts.rows} rows, {counts.kept} kept{rejected}")
    for reason in unfinished.values():
        print(f"unfinished: {reason}")
    if unfinished:
        print("the same command goes on with it")
