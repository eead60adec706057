"""Draws planned pictures into a folder, on one device, on several, or on a Ray cluster."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from altdiffusion_clip.checkpoints.model_ids import DEFAULT_MODEL
from altdiffusion_clip.drawing.calls import Drawer, size_multiple
from altdiffusion_clip.drawing.folder import OutputFolder
from altdiffusion_clip.drawing.log import Row
from altdiffusion_clip.drawing.settings import Settings, usual_guidance_scale, usual_steps
from altdiffusion_clip.drawing.tasks import Plan, Task, tasks_of
from altdiffusion_clip.errors import UserError, one_line
from altdiffusion_clip.sources.records import Record, read_records
from altdiffusion_clip.sources.texts import mend

if TYPE_CHECKING:
    from altdiffusion_clip.judges.ensembles import Panel

BATCHES_AHEAD = 2
"""How many batches may be drawn while earlier ones are saved and scored."""

Drawn = list[Image.Image | str]
"""The pictures of a batch; in place of a failed one, the reason."""
Engine = Callable[[Iterable[list[Task]]], Iterator[tuple[list[Task], Drawn]]]
"""Draws batches in order."""


def batches_of(tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    """Groups tasks into batches that differ only in prompt and seed. Wrong rows form batches of their own.

    The batches of a plan are always the same, however much of it exists already.

    Args:
        tasks: in order.
        size: of a batch.
    """
    waiting: dict[tuple[Any, ...], list[Task]] = {}
    for task in tasks:
        if task.error:
            yield [task]
            continue
        key = task.settings.batch_key()
        batch = waiting.setdefault(key, [])
        batch.append(task)
        if len(batch) == size:
            yield waiting.pop(key)
    yield from waiting.values()


def missing_of(batches: Iterable[list[Task]], output: OutputFolder) -> Iterator[list[Task]]:
    """The batches that still have to be drawn.

    In half precision the last bits of a picture depend on its batch, so an incomplete batch is drawn again as a whole.

    Raises:
        UserError: a picture exists with other settings.
    """
    for batch in batches:
        done = [output.is_done(task) for task in batch]
        if all(done):
            for task in batch:
                output.pass_over(task)
        elif batch[0].settings.is_alone or batch[0].error:
            for task, is_done in zip(batch, done, strict=True):
                if is_done:
                    output.pass_over(task)
            yield [task for task, is_done in zip(batch, done, strict=True) if not is_done]
        else:
            yield batch


def settings_of_batch(batch: Sequence[Task]) -> Settings:
    """The settings of a whole batch."""
    return batch[0].settings.beside([task.settings for task in batch])


def draw_into(
    output: OutputFolder, batches: Iterable[list[Task]], engine: Engine, overlaps: bool = True
) -> Iterator[Row]:
    """Draws batches into a folder, and finally writes its sheets and pages, even when stopped.

    Args:
        output: the folder.
        batches: to draw.
        engine: draws the batches.
        overlaps: encode and score batches while the next ones are drawn. This does not pay if the same cores do both.
            Files are always written while the next batches are drawn.

    Yields:
        Rows as they are written, and again when they get their ranks.

    Raises:
        UserError: the folder cannot be written.
    """
    waiting: deque[Future[list[Row]]] = deque()
    with ExitStack() as stack:
        stack.callback(output.finish)
        writer = stack.enter_context(ThreadPoolExecutor(1, "pictures"))
        for batch, drawn in stack.enter_context(closing(engine(batches))):  # type: ignore[type-var]
            beside = settings_of_batch(batch) if len(batch) > 1 and not batch[0].settings.is_alone else None
            done = [
                (task if beside is None else _in_batch(task, beside), picture)
                for task, picture in zip(batch, drawn, strict=True)
            ]
            if overlaps:
                waiting.append(writer.submit(output.add, done))
            else:
                waiting.append(writer.submit(output.write, output.encode(done)))
            while len(waiting) > BATCHES_AHEAD or (waiting and waiting[0].done()):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _in_batch(task: Task, beside: Settings) -> Task:
    settings = replace(task.settings, batch_seeds=beside.batch_seeds, batch_prompts=beside.batch_prompts)
    return replace(task, settings=settings)


def local_engine(drawers: Sequence[Drawer]) -> Engine:
    """Makes an engine that draws on devices of this machine, each with its own pipeline.

    Args:
        drawers: one per device.
    """

    def draw(batches: Iterable[list[Task]]) -> Iterator[tuple[list[Task], Drawn]]:
        if len(drawers) == 1:
            for batch in batches:
                yield batch, _drawn_of(drawers[0], batch)
            return
        free = list(drawers)
        running: dict[Future[Drawn], tuple[list[Task], Drawer]] = {}

        def finished() -> Iterator[tuple[list[Task], Drawn]]:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                batch, drawer = running.pop(future)
                free.append(drawer)
                yield batch, future.result()

        with ThreadPoolExecutor(len(drawers), "devices") as threads:
            for batch in batches:
                if not free:  # wait for whichever device is done first
                    yield from finished()
                drawer = free.pop()
                running[threads.submit(_drawn_of, drawer, batch)] = batch, drawer
            while running:
                yield from finished()

    return draw


def _drawn_of(drawer: Drawer, batch: Sequence[Task]) -> Drawn:
    return [task.error for task in batch] if batch[0].error else drawn_by(drawer, settings_of_batch(batch))


def drawn_by(drawer: Drawer, settings: Settings) -> Drawn:
    """The pictures of a batch. An error goes into its rows, and the others continue."""
    count = len(settings.batch_seeds)
    try:
        return drawer.draw(settings)
    except torch.OutOfMemoryError:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return ["more memory is needed than there is; try a smaller --batch-size"] * count
    except Exception as error:  # a row's LoRA, picture or size can make diffusers raise anything
        return [one_line(error)] * count


def engine_again(drawer: Drawer) -> Engine:
    """Makes an engine that draws a picture again within its original batch.

    Args:
        drawer: to draw with.
    """

    def draw(batches: Iterable[list[Task]]) -> Iterator[tuple[list[Task], Drawn]]:
        for batch in batches:
            settings = batch[0].settings
            prompts = settings.batch_prompts or (settings.prompt,) * len(settings.batch_seeds)
            if settings.is_alone:
                settings, place = settings.beside([settings]), 0
            else:
                place = list(zip(prompts, settings.batch_seeds, strict=True)).index((settings.prompt, settings.seed))
            yield batch, [drawer.draw(settings)[place]]

    return draw


def generate(
    prompts: str | Path | Sequence[str | Record],
    model: Any = DEFAULT_MODEL,
    output: str | Path = "altdiffusion-output",
    *,
    name: str = "",
    seeds: Sequence[int] = range(4),
    languages: Sequence[str] = (),
    vary: Mapping[str, Sequence[Any]] | None = None,
    judge: Any = None,
    keep: int | None = None,
    batch_size: int = 1,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Iterator[Row]:
    """Draws prompts or a table into a folder, and yields each row as it is written.

    The same call again draws what is missing.

    Args:
        prompts: prompts; rows with `prompt` and any of negative_prompt, seed, width, height, steps, guidance,
            scheduler, lora, image, mask, strength, id, language and columns of your own; or the path of such a table.
        model: a name, or an AltDiffusion pipeline.
        output: the folder.
        name: of a pipeline in the results.
        seeds: of rows without one.
        languages: columns with the prompt in each language.
        vary: values by column; every combination is drawn.
        judge: as for `rank`; by default pictures are not ranked.
        keep: keep only so many pictures of each prompt, the best ones.
        batch_size: pictures at a time in half precision; in float32 each is drawn alone.
        overwrite: draw existing pictures again.
        device: for a model given by name.
        dtype: for a model given by name.
        **settings: for all rows: `num_inference_steps`, `guidance_scale`, `negative_prompt`, ..., as in `Settings`.

    Raises:
        UserError: an argument for all rows is wrong, or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = list(generate(["猫", "a dog"], output=folder, seeds=[1], num_inference_steps=2))
        >>> [row["file"] for row in rows]
        ['000-seed1.png', '001-seed1.png']
    """
    from altdiffusion_clip.judges.names import load_panel
    from altdiffusion_clip.pipelines.alt_diffusion.pipeline_alt_diffusion import AltDiffusionPipeline

    pipeline = model
    if isinstance(model, (str, Path)):
        pipeline = AltDiffusionPipeline.from_pretrained(model, dtype=dtype).to(device)
        pipeline.set_progress_bar_config(disable=True)
    name = name or str(model if isinstance(model, (str, Path)) else pipeline.config.get("_name_or_path", ""))
    settings.setdefault("guidance_scale", usual_guidance_scale(name))
    settings.setdefault("num_inference_steps", usual_steps(name))
    base = Settings(
        "", 0, (), name, device=str(pipeline.device), dtype=str(pipeline.unet.dtype).removeprefix("torch."), **settings
    )
    if not isinstance(prompts, (str, Path)):
        prompts = list(prompts)  # they are read twice
    varied = {key: [str(value) for value in values] for key, values in (vary or {}).items()}
    plan = Plan(base, list(seeds), tuple(languages), vary=varied, multiple=size_multiple(pipeline))
    panel: Panel | None = None if judge is None else load_panel(judge, pipeline.device, pipeline.unet.dtype, pipeline)
    folder = OutputFolder(Path(output), panel, keep, overwrite)
    with folder.locked():
        numbers = folder.numbers()
        folder.plan(tasks_of(records_of(prompts), plan, numbers))
        batches = batches_of(tasks_of(records_of(prompts), plan, numbers), batch_size)
        engine, overlaps = local_engine([Drawer(pipeline)]), pipeline.device.type != "cpu"
        yield from draw_into(folder, missing_of(batches, folder), engine, overlaps=overlaps)


def records_of(prompts: str | Path | Sequence[str | Record]) -> Iterator[Record | str]:
    """The prompts as rows of a table."""
    if isinstance(prompts, (str, Path)):
        yield from with_places(read_records(str(prompts)), Path(prompts).parent)
        return
    for each in prompts:
        yield mend({"prompt": each} if isinstance(each, str) else dict(each))


def with_places(records: Iterable[Record | str], folder: Path) -> Iterator[Record | str]:
    """Resolves pictures, masks and LoRAs of rows relative to a folder, unless their paths exist as given."""

    def found(given: str) -> str:
        beside = folder / given
        return str(beside) if given and not Path(given).exists() and beside.exists() else given

    for record in records:
        if not isinstance(record, str):
            for column in ("image", "mask"):
                if isinstance(record.get(column), str):
                    record = {**record, column: found(record[column])}
            if isinstance(record.get("lora"), str):
                loras = (each.strip().rpartition(":") for each in record["lora"].split(","))
                there = (f"{found(place)}:{weight}" if colon else found(weight) for place, colon, weight in loras)
                record = {**record, "lora": ", ".join(there)}
        yield record


def check_base(settings: Settings, multiple: int) -> None:
    """Rejects sizes that the model cannot draw.

    Raises:
        UserError: it names the first one.
    """
    for name in ("height", "width"):
        value = getattr(settings, name)
        if value is not None and (value < multiple or value % multiple):
            raise UserError(f"--{name} must be a multiple of {multiple} for this model")
