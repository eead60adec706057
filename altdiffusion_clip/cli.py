"""The `altdiffusion` command: reads the arguments and hands over to one module of `commands/`."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import version

from altdiffusion_clip.commands import (
    benchmark,
    completion,
    convert,
    demo,
    embed,
    evaluate,
    filter,
    generate,
    inspect,
    merge,
    rerank,
    score,
    train,
)
from altdiffusion_clip.commands.parsers import Parser
from altdiffusion_clip.errors import UserError, one_line

DONE, SOME_FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = Parser(
        prog="altdiffusion",
        description="Draw and rank pictures from prompts in many languages.",
        examples=[
            'altdiffusion generate "a panda on a red background"',
            "altdiffusion help generate",
        ],
    )
    parser.add_argument(
        "--version",
        action="version",
        version=f"altdiffusion-clip {version('altdiffusion-clip')}",
        help="Show the version.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for module in (
        generate, rerank, score, filter, embed, evaluate, train, merge, convert, inspect, demo, benchmark, completion,
    ):  # fmt: skip
        module.add_parser(commands)
    for command in commands.choices.values():
        command.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
    help_ = commands.add_parser("help", help="Show the help of a command.")
    help_.add_argument("words", nargs="*", metavar="COMMAND", help="The command, such as generate or train lora.")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 done, 1 some inputs failed and were listed, 2 the call was wrong, 130 interrupted.
    """
    if arguments is None:
        _use_utf8()
    options = build_parser().parse_args(arguments)
    if options.command in (None, "help"):
        build_parser().parse_args([*getattr(options, "words", ()), "--help"])
    in_main = threading.current_thread() is threading.main_thread()  # other streams cannot be reconfigured
    if in_main:
        # SIGTERM cleans up as Ctrl-C does.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return DONE if options.run(options) else SOME_FAILED
    except KeyboardInterrupt:
        _say("stopped; what was finished has been kept")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has stopped. Leave the interpreter nothing to flush into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if options.debug:
            raise
        message = one_line(error)
        if not isinstance(error, UserError):
            message += " (--debug shows where)"
    finally:
        if in_main:  # a second Ctrl-C must not interrupt the clean-up
            signal.signal(signal.SIGTERM, before)
    _say(message)
    return WRONG_CALL


def _say(message: str) -> None:
    """Writes a line to stderr at once: where Python does not buffer, the lines of several processes would mix."""
    sys.stderr.write(f"altdiffusion: {message}\n")


def _use_utf8() -> None:
    """Starts again in Python's UTF-8 mode where the system's locale cannot write most of the world's languages."""
    if sys.getfilesystemencoding() == "ascii" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


if __name__ == "__main__":
    raise SystemExit(main())
