"""Encoding prompts with one padding token instead of all, compared with diffusers' class on the same weights.

    python benchmarks/prompt_encoding.py [--batch-size 8] [--rounds 5] [--device cpu]

The tower has AltDiffusion-m9's full size (560M parameters) and random weights. There are four comparisons: short
prompts in float32; the same in the device's half precision; prompts that fill the window; and short prompts in the
fastest dtype, measured as in `altdiffusion score`, compared with their default float32. Rounds of both sides alternate.
Figures are medians.
"""

import argparse
import copy
import functools
import statistics

import torch
from full_size import text_encoders
from report import has_bf16, report
from timing import in_turns, ratio

TOKENS, WINDOW = 12, 77


def batch(tokens: int, size: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.full((size, WINDOW), 1)
    ids[:, :tokens] = torch.randint(4, 250_000, (size, tokens))
    ids[:, 0], ids[:, tokens - 1] = 0, 2
    return ids.to(device), (ids != 1).long().to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    half = torch.bfloat16 if options.device == "cpu" else torch.float16
    torch.manual_seed(0)
    whole_models = dict(zip(("ours", "theirs"), text_encoders(), strict=True))
    models: dict[tuple[str, torch.dtype], torch.nn.Module] = {}
    for side, model in whole_models.items():
        models[side, torch.float32] = model.to(options.device)
        models[side, half] = copy.deepcopy(model).to(half)

    def compare(name: str, tokens: int, ours_in: torch.dtype, theirs_in: torch.dtype, goal: float) -> float:
        ids, mask = batch(tokens, options.batch_size, options.device)
        sides = {"ours": models["ours", ours_in], "theirs": models["theirs", theirs_in]}
        outputs = {}

        def encode(side: str) -> None:
            outputs[side] = sides[side](ids, attention_mask=mask, return_dict=True).projection_state

        with torch.inference_mode():
            runs = {side: functools.partial(encode, side) for side in sides}
            seconds = in_turns(runs, options.rounds, options.device)
        median = {side: statistics.median(values) for side, values in seconds.items()}
        times, span = ratio(seconds, "theirs", "ours")
        report(
            f"prompt encoding, batch {options.batch_size}, {tokens} tokens, {name}",
            median["ours"],
            median["theirs"],
            "seconds a batch",
            times,
            goal,
            range=span,
            largest_difference=float((outputs["ours"].float() - outputs["theirs"].float()).abs().max()),
        )
        return median["ours"]

    whole = compare("float32", TOKENS, torch.float32, torch.float32, 4.5)
    compare("float32", WINDOW, torch.float32, torch.float32, 0.95)
    halved = compare(str(half).removeprefix("torch."), TOKENS, half, half, 4.5)
    fastest = half if halved * 1.2 < whole else torch.float32
    goal = 15.0 if options.device == "cpu" and has_bf16() else 4.5
    compare(f"{str(fastest).removeprefix('torch.')} against their float32", TOKENS, fastest, torch.float32, goal)


if __name__ == "__main__":
    main()
