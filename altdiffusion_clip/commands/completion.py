"""`altdiffusion completion`: lets a shell complete the commands and their options."""

import argparse
from pathlib import Path

SHELLS = ("bash", "zsh", "tcsh")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "completion",
        help="Print a script that completes commands in your shell.",
        description="Print a script that completes the commands and options of altdiffusion in your shell.",
        examples=[
            "altdiffusion completion bash > ~/.local/share/bash-completion/completions/altdiffusion",
            "altdiffusion completion zsh > ~/.zfunc/_altdiffusion",
        ],
    )
    parser.add_argument("shell", choices=SHELLS, help="Your shell.")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Prints the script."""
    import shtab

    from altdiffusion_clip.cli import build_parser

    parser = build_parser()
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, shell=options.shell))
    return True


def _complete_files(parser: argparse.ArgumentParser, files: object) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command, files)
        elif action.type is Path:
            action.complete = files  # type: ignore[attr-defined]
