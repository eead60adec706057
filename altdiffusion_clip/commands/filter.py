"""`altdiffusion filter`: keeps the rows of a data set whose pictures and texts fit."""

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
        help="Keep the rows of data sets whose pictures and texts match.",
        description="Keep the rows that `altdiffusion score` found to match. They are written to kept/, in files like "
        "their sources; all others go to rejected/ as JSON lines with a reason. The same command continues after a "
        "stop. If a source could not be read to the end, or has rows without a score yet, the exit code is 1.\n\n"
        "Cosines of different languages are not comparable: one threshold for all keeps more of the languages that the "
        "judge knows best. With --by language, each language gets its own.",
        examples=[
            "altdiffusion filter scores/ --top 30% --by language --output filtered/",
            "altdiffusion filter scores/ --html page.html",
        ],
    )
    parser.add_argument("scores", type=Path, metavar="SCORES", help="A folder that `altdiffusion score` wrote.")
    parser.add_argument("--output", type=Path, metavar="DIR", help="Folder for the rows.")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="Write a page with histograms by language and example pictures."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object at the end, not a sentence.")
    rules = parser.add_argument_group("rules")
    rules.add_argument(
        "--top",
        action="append",
        default=[],
        metavar="[LANGUAGE=][JUDGE:]N",
        help="Keep the best rows: a share such as 30%%, or a number. Can be repeated.",
    )
    rules.add_argument(
        "--min",
        action="append",
        default=[],
        metavar="[LANGUAGE=][JUDGE:]SCORE",
        help="Keep rows with at least this score. Can be repeated.",
    )
    rules.add_argument(
        "--shuffled",
        action="append",
        default=[],
        metavar="[LANGUAGE=]SHARE",
        help="Keep rows that score higher than this share, such as 99%%, of pictures paired with the wrong text. Needs "
        "score --embeddings.",
    )
    rules.add_argument(
        "--near-duplicates",
        type=float,
        metavar="COSINE",
        help="Of pictures that are this similar, such as 0.95, keep only the best. Needs score --embeddings.",
    )
    rules.add_argument("--by", choices=("language",), help="Apply shares and numbers to each language.")
    rules.add_argument("--any", action="store_true", help="Keep a row that meets one of the rules, not all.")
    rules.add_argument("--attempts", type=int, default=5, metavar="N", help="Tries to read a source (default: 5).")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Filters. Returns whether every row was decided on."""
    from tqdm import tqdm

    from altdiffusion_clip.bulk.filter_page import write_filter_page
    from altdiffusion_clip.bulk.filtering import NOT_SCORED, Criterion, Filter, run_filter, thresholds_of
    from altdiffusion_clip.bulk.scored_folder import ScoredFolder
    from altdiffusion_clip.sources.retries import Retries

    if options.attempts < 1:
        raise UserError("--attempts must be 1 or more")
    criteria = [Criterion.parse("top", given) for given in options.top]
    criteria += [Criterion.parse("min", given) for given in options.min]
    criteria += [Criterion.parse("shuffled", given) for given in options.shuffled]
    alike = options.near_duplicates
    if alike is not None and not 0 < alike <= 1:
        raise UserError(f"--near-duplicates {alike}: give a cosine above 0 and up to 1, such as 0.95")
    has_rules = bool(criteria) or alike is not None
    if not has_rules and not options.html:
        raise UserError("no rule says what to keep; give --top, --min, --shuffled or --near-duplicates")
    if has_rules and not options.output and not options.html:
        raise UserError("there is no place for the kept rows; give --output DIR")
    prepare_output()
    wanted = Filter(tuple(criteria), options.by == "language", options.any, alike)
    retries = Retries(options.attempts)
    if options.html:
        scores = ScoredFolder(options.scores)
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
