"""`altdiffusion demo`: draws and ranks in a browser."""

import argparse
import sys

from altdiffusion_clip.checkpoints.model_ids import DEFAULT_MODEL
from altdiffusion_clip.commands.judge_options import OWN, add_judge_option, panel_for
from altdiffusion_clip.commands.loading import load_pipeline
from altdiffusion_clip.commands.options import add_model_options, device_and_dtype, prepare_output
from altdiffusion_clip.errors import UserError


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo",
        help="Open a page to draw and rank in a browser.",
        description="Serve a page in English and Chinese that draws, edits and ranks pictures. Only this machine can "
        "reach it unless --host says otherwise. Ctrl-C stops it.",
        examples=[
            "altdiffusion demo",
            "altdiffusion demo --model BAAI/AltDiffusion-m9 --host 0.0.0.0 --auth me:secret",
        ],
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="A folder, a single file, or a hub id (default: %(default)s)."
    )
    add_judge_option(parser, "--scorer", OWN)
    server = parser.add_argument_group("server")
    server.add_argument(
        "--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all (default: %(default)s)."
    )
    server.add_argument("--port", type=int, default=7860, help="Port (default: %(default)s).")
    server.add_argument("--auth", metavar="NAME:PASSWORD", help="Ask visitors for this name and password.")
    server.add_argument("--queue", type=int, default=64, metavar="N", help="Most waiting calls (default: %(default)s).")
    server.add_argument(
        "--calls-per-minute", type=int, default=30, metavar="N", help="Most calls per visitor (default: %(default)s)."
    )
    server.add_argument(
        "--max-upload-mb", type=int, default=20, metavar="MB", help="Largest upload (default: %(default)s)."
    )
    server.add_argument(
        "--max-megapixels", type=int, default=40, metavar="N", help="Largest picture (default: %(default)s)."
    )
    speed = parser.add_argument_group("speed and hardware")
    speed.add_argument("--fast", action="store_true", help="Use the fastest settings for this machine.")
    add_model_options(speed)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> bool:
    """Serves until stopped."""
    name, _, password = (options.auth or "").partition(":")
    if options.auth and not (name and password):
        raise UserError("--auth takes a name and a password, such as --auth me:secret")
    if not 1 <= options.port < 65536:
        raise UserError("--port must be between 1 and 65535")
    for limit in ("queue", "calls_per_minute", "max_upload_mb", "max_megapixels"):
        if getattr(options, limit) < 1:
            raise UserError(f"--{limit.replace('_', '-')} must be 1 or more")
    prepare_output()
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise UserError('the demo needs Gradio; pip install "altdiffusion-clip[demo]"') from None

    from altdiffusion_clip.demo.limits import Limits
    from altdiffusion_clip.demo.server import Service, serve
    from altdiffusion_clip.demo.studio import Studio

    pipeline = load_pipeline(options.model, *device_and_dtype(options))
    panel = panel_for(options, pipeline)
    if panel is not None:
        panel.check_by_row()
    if options.fast:
        print(f"fast: {'; '.join(pipeline.optimize().changes)}", file=sys.stderr)
    studio = Studio(pipeline, panel, options.model)
    limits = Limits(
        queue=options.queue,
        calls_per_minute=options.calls_per_minute,
        upload_bytes=options.max_upload_mb * 1_000_000,
        upload_pixels=options.max_megapixels * 1_000_000,
    )
    service = Service(studio, limits, (name, password) if options.auth else None)
    print(f"{options.model} is at http://{options.host}:{options.port}", flush=True)
    serve(service, options.host, options.port)
    return True
