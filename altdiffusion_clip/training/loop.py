"""The training loop of all stages.

A stage provides a module, a source of batches and a backward function. What a step draws depends only on the seed and
the step number, so a run that was killed and continued sees the same batches as an undisturbed one. Every process draws
the whole batch and loads its share, so two processes compute the same as one.
"""

import copy
import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset
from tqdm import tqdm

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.accelerators import agreed, new_accelerator, time_is_up
from altdiffusion_clip.training.checkpoint import load_state, save_state, trained_weights, whole_tensor
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.data.arrays import read_ahead
from altdiffusion_clip.training.machines import copy_to_all
from altdiffusion_clip.training.metrics import Metrics

logger = logging.getLogger(__name__)
Module = TypeVar("Module", bound=nn.Module)
Tensors = dict[str, Tensor]
CHECKPOINT_FILE = "checkpoint.pt"
MOST_BAD_STEPS = 20
MOST_SAVING = 0.05
"""The largest share of time for checkpoints."""


class Source(Protocol):
    """A source of batches."""

    def draw(self, generator: torch.Generator) -> Tensors:
        """Draws what a whole batch consists of, as small tensors whose first dimension is the batch. Reads no files."""

    def load(self, drawn: Tensors) -> Tensors:
        """Loads the tensors of some drawn examples, on the CPU."""


Backward = Callable[[Accelerator, nn.Module, list[Tensors]], Tensor]
"""Backpropagates the parts of a process's share, and returns the loss of the whole batch."""


class DivergedError(UserError, FloatingPointError):
    """Many steps in a row failed. The last good checkpoint is kept."""


class Stopped(UserError):
    """The run saved itself because its time was up. The same command continues it."""


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator that depends only on the seed and the step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def mean_loss(accelerator: Accelerator, module: nn.Module, parts: list[Tensors]) -> Tensor:
    """Backpropagates the mean of the losses that a module returns for the parts of a batch."""
    total = torch.zeros((), device=accelerator.device)
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        with nullcontext() if is_last else accelerator.no_sync(module), accelerator.autocast():
            loss = module(**part) / len(parts)
        accelerator.backward(loss)
        total += loss.detach()
    return accelerator.reduce(total, reduction="mean")


def optimise(
    module: Module,
    source: Source,
    config: RunConfig,
    name: str,
    *,
    backward: Backward = mean_loss,
    folder: Path | None = None,
    accelerator: Accelerator | None = None,
    validate: Callable[[Module, int], dict[str, float]] | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
) -> Module:
    """Trains the parameters of a module that require gradients. Continues from its checkpoint if there is one.

    Args:
        module: to train, in place. Its forward takes the output of `source.load`.
        source: the batches.
        config: how long and how fast.
        name: of the stage, for the progress bar and files.
        backward: the backward function; by default forward returns a loss.
        folder: for the checkpoint, metrics.jsonl and TensorBoard files; by default `config.output`.
        accelerator: of this run; by default a new one.
        validate: measures the module (its average, if there is one) on the main process, every so many steps.
        after_step: called after each step, to keep parameters within bounds.

    Returns:
        The module, with averaged weights if `config.ema_decay` > 0. Steps whose loss or gradient is not finite, or
        whose gradient exceeds `config.max_spike`, are skipped, logged and counted. `MOST_BAD_STEPS` in a row end the
        run.

    Raises:
        DivergedError: `MOST_BAD_STEPS` steps in a row were skipped.
        CheckpointError: the checkpoint cannot be read or belongs to another module.
        Stopped: `config.stop_after_seconds` have passed.
        OSError: the last checkpoint cannot be written. (Earlier failures are logged and retried.)
    """
    accelerator = accelerator or new_accelerator(config)
    folder = folder or config.output
    checkpoint = folder / CHECKPOINT_FILE
    if config.gradient_checkpointing:
        for part in module.modules():
            enable = getattr(part, "gradient_checkpointing_enable", None) or getattr(
                part, "enable_gradient_checkpointing", None
            )
            if callable(enable):
                enable()
    # Sharding changes the module in place, so the trained weights go back into a full copy.
    whole = copy.deepcopy(module) if accelerator.distributed_type == DistributedType.FSDP else None
    model, optimizer = accelerator.prepare(module, _optimizer(module, config))
    trainable = {n: p for n, p in accelerator.unwrap_model(model).named_parameters() if p.requires_grad}
    average = {n: p.detach().clone() for n, p in trainable.items()} if config.ema_decay else None
    counters: dict[str, Any] = {"step": 0, "skipped": 0, "seconds": 0.0, "norm": 0.0}
    copy_to_all(checkpoint, accelerator)
    if checkpoint.exists():
        counters |= load_state(checkpoint, accelerator, model, optimizer.optimizer, average)
        # A finished run with more steps continues.
        if counters.pop("finished", False) and (config.seconds or counters["step"] >= config.steps):
            return _finished(accelerator, model, average, whole)
    step, started, saved, bad = counters["step"], time.monotonic(), time.monotonic(), 0
    waited, logged, logged_step, cost = 0.0, started, step, 0.0
    before = counters["seconds"]

    def seconds() -> float:
        """The training time of the run over all its parts."""
        return before + time.monotonic() - started

    def save(**more: Any) -> None:
        nonlocal saved, cost
        begun = time.monotonic()
        counters.update(step=step, seconds=seconds())
        save_state(checkpoint, accelerator, model, optimizer.optimizer, average, {**counters, **more})
        saved = time.monotonic()
        cost = saved - begun

    def is_time_to_save() -> bool:
        if not config.checkpoint_seconds:
            return True
        # Slow checkpoints are written less often, so that they take at most `MOST_SAVING` of the time.
        least = max(config.checkpoint_seconds, cost * (1 / MOST_SAVING - 1))
        return agreed(time.monotonic() - saved > least, accelerator)

    bar = tqdm(total=config.steps, initial=step, desc=name, mininterval=5.0, disable=not accelerator.is_main_process)
    ahead = closing(read_batches(source, config, step, accelerator))
    if config.trackers and not accelerator.trackers:
        accelerator.init_trackers(config.output.name, {key: str(value) for key, value in config.as_dict().items()})
    with Metrics(folder, step, accelerator) as metrics, bar, ahead as batches:
        model.train()
        is_first = True
        while step < config.steps:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(step, seconds())
            asked = time.monotonic()
            parts = next(batches)
            waited += time.monotonic() - asked
            # Layers such as dropout use the global generator, so it must depend on the step too.
            torch.manual_seed(config.seed * 1_000_003 + step)
            if isinstance(model, DistributedDataParallel) and is_first:
                # After its first backward pass, it divides the gradients into other parts, which are rounded otherwise
                # if there are more than two processes. A continued run would have its first pass at another step.
                backward(accelerator, model, parts)
                optimizer.zero_grad(set_to_none=True)
                torch.manual_seed(config.seed * 1_000_003 + step)
            is_first = False
            loss = backward(accelerator, model, parts)
            norm = accelerator.clip_grad_norm_(trainable.values(), config.max_grad_norm)
            step += 1
            is_finite = bool(torch.isfinite(loss) and torch.isfinite(norm))
            is_spike = is_finite and 0 < config.max_spike * counters["norm"] < norm
            if is_spike:
                if accelerator.scaler is not None:
                    accelerator.scaler.update()
            # In fp16, the scaler must see an overflowing gradient: it skips the step itself and lowers its scale.
            elif is_finite or accelerator.scaler is not None:
                optimizer.step()
            if after_step is not None:
                after_step(model)
            optimizer.zero_grad(set_to_none=True)
            is_good = is_finite and not is_spike
            if is_good and average is not None:
                _update_average(average, trainable, min(config.ema_decay, (1 + step) / (10 + step)))
            if is_good:
                bad = 0
                counters["norm"] += (norm.item() - counters["norm"]) * (0.02 if counters["norm"] else 1.0)
            else:
                bad += 1
                counters["skipped"] += 1
                what = "the loss or its gradient is not finite"
                if is_spike:
                    what = f"the gradient's norm is {norm.item():.3g}, where {counters['norm']:.3g} is usual"
                logger.warning("%s: step %d: %s, step skipped", name, step, what)
            if bad == MOST_BAD_STEPS:
                raise DivergedError(
                    f"{name}: {bad} steps in a row were skipped, the last since {what}; {checkpoint} holds the state "
                    "before; try a lower learning rate"
                )
            bar.update()
            is_last = step == config.steps or (config.seconds and seconds() >= config.seconds)
            if step % config.log_every == 0 or is_last:
                bar.set_postfix(loss=f"{loss.item():.4f}", skipped=counters["skipped"], refresh=False)
                figures = {"loss": loss.item(), "gradient_norm": norm.item(), "learning_rate": group["lr"]}
                # The share of time spent waiting for batches. If it is large, more workers may help.
                now = time.monotonic()
                spent = max(now - logged, 1e-9)
                figures |= {"waiting": round(waited / spent, 3)}
                figures |= {"examples_per_second": round((step - logged_step) * config.batch_size / spent, 2)}
                if torch.cuda.is_available():
                    figures |= {"memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 3)}
                metrics.add(step, **figures)
                waited, logged, logged_step = 0.0, now, step
            is_due = is_last or (config.validate_every and step % config.validate_every == 0)
            if validate is not None and is_due:
                metrics.add(step, **_validated(accelerator, model, average, whole, validate, step))
            if is_last:
                break
            # A state that only skips steps must not become the checkpoint to continue from.
            if not bad and is_time_to_save():
                _save_or_warn(save, checkpoint, accelerator)
            if time_is_up(config, accelerator):
                save()
                raise Stopped(
                    f"{name}: stopped after step {step} of {config.steps}; run the same command again to continue"
                )
    save(finished=True)
    if counters["skipped"]:
        logger.warning("%s: %d of %d steps were skipped, as said above", name, counters["skipped"], config.steps)
    return _finished(accelerator, model, average, whole)


def _optimizer(module: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    trainable = [p for p in module.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("nothing of this module requires gradients")
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # CLIP's and RoBERTa's settings. With an eps of 1e-8, the rounding of a gradient near zero, which depends on the
    # number of processes, would decide the sign of a whole step.
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


class _Shares(Dataset[list[Tensors]]):
    """This process's share of each step's batch, cut into parts that are computed one after another."""

    def __init__(self, source: Source, config: RunConfig, accelerator: Accelerator) -> None:
        self._source, self._seed, self._parts = source, config.seed, config.gradient_accumulation_steps
        self._processes, self._process = accelerator.num_processes, accelerator.process_index

    def __getitem__(self, step: int) -> list[Tensors]:
        drawn = self._source.draw(step_generator(self._seed, step))
        size, count = len(next(iter(drawn.values()))), self._processes * self._parts
        shares = []
        for number in range(self._parts):
            first = self._process * self._parts + number
            rows = slice(first * size // count, (first + 1) * size // count)
            shares.append(self._source.load({key: value[rows] for key, value in drawn.items()}))
        return shares


def read_batches(source: Source, config: RunConfig, first: int, accelerator: Accelerator) -> Generator[list[Tensors]]:
    """The batches from a step on, on the device. Workers, if any, read ahead."""
    shares = _Shares(source, config, accelerator)
    pinned = accelerator.device.type == "cuda"
    for parts in read_ahead(shares, range(first, config.steps), config.workers, pinned):
        yield [{k: v.to(accelerator.device, non_blocking=pinned) for k, v in part.items()} for part in parts]


def _save_or_warn(save: Callable[[], None], path: Path, accelerator: Accelerator) -> None:
    try:
        save()
    except OSError as error:
        if accelerator.num_processes > 1:
            raise  # otherwise the other processes would wait for this one
        logger.warning("cannot write %s (%s); the one before is kept, and the next is tried on time", path, error)


def _validated(
    accelerator: Accelerator,
    model: nn.Module,
    average: Tensors | None,
    whole: nn.Module | None,
    validate: Callable[[Any, int], dict[str, float]],
    step: int,
) -> dict[str, float]:
    """Measures on the main process, with the averaged weights swapped in or in a full copy."""
    accelerator.wait_for_everyone()
    if whole is not None:  # needs all processes
        _put_together(whole, model, average)
        with torch.no_grad():
            measured = validate(whole.to(accelerator.device), step) if accelerator.is_main_process else {}
        whole.cpu()
        accelerator.wait_for_everyone()
        return measured
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        return {}
    plain = accelerator.unwrap_model(model)
    parameters = {n: p for n, p in plain.named_parameters() if p.requires_grad}
    kept = {n: p.detach().clone() for n, p in parameters.items()} if average is not None else {}
    with torch.no_grad():
        for name, tensor in (average or {}).items():
            parameters[name].copy_(tensor)
        plain.eval()
        measured = validate(plain, step)
        for name, tensor in kept.items():
            parameters[name].copy_(tensor)
    plain.train()
    accelerator.wait_for_everyone()
    return measured


@torch.no_grad()
def _finished(accelerator: Accelerator, model: nn.Module, average: Tensors | None, whole: nn.Module | None) -> Any:
    accelerator.wait_for_everyone()
    if whole is not None:
        return _put_together(whole, model, average)
    module = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    parameters = dict(module.named_parameters())
    for name, tensor in (average or {}).items():
        parameters[name].copy_(tensor)
    return module.eval()


@torch.no_grad()
def _put_together(whole: nn.Module, sharded: nn.Module, average: Tensors | None) -> nn.Module:
    """Copies the weights of a sharded module, or their average, into a full one."""
    weights = trained_weights(sharded) if average is None else {n: whole_tensor(t) for n, t in average.items()}
    whole.load_state_dict(weights, strict=False)
    return whole.eval()


@torch.no_grad()
def _update_average(average: Tensors, parameters: dict[str, nn.Parameter], decay: float) -> None:
    torch._foreach_lerp_(list(average.values()), [parameters[n].detach() for n in average], 1 - decay)
