"""Contrastive batches of any size in the memory of a small one (GradCache, Gao et al., arXiv 2101.06983).

InfoNCE needs the whole batch at once, but the towers do not. First embed every part without gradients. Then compute the
loss and its gradient with respect to the embeddings. Finally embed each part again with gradients, and backpropagate
its rows of that gradient. The result is the gradient of the plain large batch.

Several processes share a batch in the same way: each embeds its own rows, all rows are gathered, and each process
backpropagates only its own, so no gradients have to be exchanged on the way.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from altdiffusion_clip.training.gather import gather_rows
from altdiffusion_clip.training.loop import Tensors

Loss = Callable[..., Tensor]


def cached_backward(
    accelerator: Accelerator, model: nn.Module, parts: list[Tensors], loss_of: Loss, fixed: tuple[str, ...]
) -> Tensor:
    """Backpropagates through a batch that is embedded in parts.

    Args:
        accelerator: of the run.
        model: its forward takes a part without `fixed`, and returns a dict of rows, float (n, dim), to gather, and of
            scalars, which are parameters of the loss.
        parts: this process's share.
        loss_of: computes the loss of the whole batch from the gathered rows, the scalars and the gathered `fixed`.
        fixed: names in `parts` that only the loss reads.

    Returns:
        The detached loss of the whole batch. Gradients are added to the parameters.
    """
    states: list[tuple[Tensor, Tensor | None]] = []
    given = [{k: v for k, v in part.items() if k not in fixed} for part in parts]
    if len(parts) == 1:
        # A single part needs no second pass, because its activations are kept.
        with accelerator.autocast():
            outputs = [model(**given[0])]
        held = outputs
    else:
        held = []
        with torch.no_grad(), accelerator.autocast():
            for part in given:
                states.append(_random_state(accelerator.device))
                held.append(model(**part))
        outputs = []
    row_names = [name for name, value in held[0].items() if value.ndim]
    mine = {name: torch.cat([output[name].detach().float() for output in held]) for name in row_names}
    rows = {name: gather_rows(accelerator, value).requires_grad_() for name, value in mine.items()}
    scalars = {name: value.detach().clone().requires_grad_() for name, value in held[0].items() if not value.ndim}
    others = {name: gather_rows(accelerator, torch.cat([part[name] for part in parts])) for name in fixed}
    with torch.enable_grad():
        loss = loss_of(**rows, **scalars, **others)
    leaves = {**rows, **scalars}
    gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True), strict=True))
    # Parameter gradients are averaged over processes, but each process has only its own rows.
    processes = accelerator.num_processes
    place = accelerator.process_index * len(next(iter(mine.values())))
    for number, part in enumerate(given):
        is_last = number == len(given) - 1
        with nullcontext() if is_last else accelerator.no_sync(model):
            if outputs:
                output = outputs[number]
            else:
                # Repeats the dropout of the first pass.
                _set_random_state(states[number], accelerator.device)
                with accelerator.autocast():
                    output = model(**part)
            count = len(output[row_names[0]])
            # The gradient of the dot product with the cached gradient is that gradient.
            surrogate = sum(
                (output[name].float() * gradients[name][place : place + count]).sum() * processes
                for name in row_names
                if gradients[name] is not None and output[name].requires_grad
            )
            surrogate = surrogate + sum(
                output[name] * gradients[name] / len(given) for name in scalars if output[name].requires_grad
            )
            accelerator.backward(surrogate)
            place += count
    return loss.detach()


def _random_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
