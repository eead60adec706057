"""Encoding prompts: one padding token in place of all of them, against diffusers' class on the same weights.

    python benchmarks/prompt_encoding.py [--tokens 12] [--batch-size 8] [--rounds 5]

The tower has AltDiffusion-m9's full size (560M parameters) and random weights. Rounds of both sides alternate;
the figures are medians.
"""

import argparse
import statistics
import time

import torch
from diffusers.pipelines.deprecated.alt_diffusion import modeling_roberta_series as theirs
from report import report
from transformers.initialization import no_init_weights

from altdiffusion_clip.text_encoder import RobertaSeriesConfig, RobertaSeriesModelWithTransformation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=12, help="of each prompt, of 77")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    torch.manual_seed(0)
    config = RobertaSeriesConfig(has_pre_LN=False)
    with no_init_weights():
        ours = RobertaSeriesModelWithTransformation(config)
    for name, parameter in ours.named_parameters():
        parameter.data = (
            torch.ones_like(parameter) if "LayerNorm.weight" in name else 0.02 * torch.randn_like(parameter)
        )
    reference = theirs.RobertaSeriesModelWithTransformation(theirs.RobertaSeriesConfig(**config.to_dict()))
    reference.load_state_dict(ours.state_dict(), strict=False, assign=True)
    models = {"ours": ours.eval().to(options.device), "theirs": reference.eval().to(options.device)}

    ids = torch.full((options.batch_size, 77), 1)
    ids[:, : options.tokens] = torch.randint(4, 250_000, (options.batch_size, options.tokens))
    ids[:, 0], ids[:, options.tokens - 1] = 0, 2
    ids = ids.to(options.device)
    mask = (ids != 1).long()

    seconds: dict[str, list[float]] = {name: [] for name in models}
    outputs = {}
    with torch.inference_mode():
        for round_number in range(options.rounds + 1):
            for name, model in models.items():
                start = time.perf_counter()
                outputs[name] = model(ids, attention_mask=mask, return_dict=True).projection_state
                if options.device != "cpu":
                    torch.cuda.synchronize()
                if round_number:  # the first one warms up
                    seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name}: median {median[name]:.3f} s, {min(values):.3f} to {max(values):.3f} s")
    report(
        f"prompt encoding, batch {options.batch_size}, {options.tokens} tokens, float32",
        median["ours"],
        median["theirs"],
        "seconds a batch",
        median["theirs"] / median["ours"],
        goal=4.5 if options.tokens <= 12 else 0.95,
        largest_difference=float((outputs["ours"] - outputs["theirs"]).abs().max()),
    )


if __name__ == "__main__":
    main()
