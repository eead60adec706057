"""Options that several commands share."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from altdiffusion_clip.errors import UserError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "float16", "bfloat16")


def add_model_options(parser: "argparse._ActionsContainer", several: bool = False) -> None:
    """Adds --device, which takes several devices if `several` is set, and --dtype."""
    more = ", or several, such as cuda:0,cuda:1" if several else ""
    parser.add_argument(
        "--device", default="auto", help=f"cpu, cuda, cuda:1, mps or xpu{more} (default: a GPU if there is one)."
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="Precision of weights and arithmetic (default: float32)."
    )


def device_and_dtype(options: argparse.Namespace) -> "tuple[torch.device, torch.dtype]":
    """Where and in what precision to compute, from the options of `add_model_options`."""
    device = device_of(options.device)
    return device, dtype_on(device, options.dtype)


def device_of(name: str) -> "torch.device":
    """The device with a name; for "auto", a GPU if there is one.

    Raises:
        UserError: this machine has no such device.
    """
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found if found is not None and found.type in ("cuda", "mps", "xpu") else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"there is no device {name!r} here; use --device cpu or cuda") from error
    return device


def dtype_of(name: str) -> "torch.dtype":
    """The torch dtype with a name."""
    import torch

    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def dtype_on(device: "torch.device", name: str) -> "torch.dtype":
    """The torch dtype with a name, to compute in. Warns if that takes this device much longer than float32."""
    from altdiffusion_clip.precision import warn_if_slow

    dtype = dtype_of(name)
    warn_if_slow(dtype, device.type, name)
    return dtype


def prepare_output() -> None:
    """Keeps the libraries' bars and notices out of a command's output, and shows each of our warnings once."""
    package = logging.getLogger("altdiffusion_clip")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("altdiffusion: %(message)s"))
    handler.addFilter(_once())
    package.handlers[:] = [handler]  # only of this command, in case another ran in this process before

    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()


@contextmanager
def writing() -> Iterator[Callable[[int, int], object]]:
    """A progress bar on stderr. Yields a function that takes the bytes written and the total."""
    from tqdm import tqdm

    with tqdm(desc="writing", unit="B", unit_scale=True, file=sys.stderr) as bar:

        def progress(written: int, total: int) -> None:
            bar.total = total
            bar.update(written - bar.n)

        yield progress


def _once() -> Callable[[logging.LogRecord], bool]:
    seen: set[str] = set()

    def passes(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in seen
        seen.add(message)
        return is_new

    return passes
