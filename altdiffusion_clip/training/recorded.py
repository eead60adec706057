"""Training steps that are recorded once as a CUDA graph and then replayed.

A small UNet on a large GPU is limited by launching thousands of kernels, not by computing them.
"""

import logging

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from altdiffusion_clip.errors import one_line
from altdiffusion_clip.training.loop import Tensors, mean_loss

logger = logging.getLogger(__name__)
EAGER_STEPS = 3
"""Steps before the recording, to compile everything and allocate buffers."""


class RecordedLoss:
    """Runs forward and backward like `mean_loss`, but from a recording if possible.

    It records on a single GPU, if a step has one part and no loss scale, and all batches have the same shapes.
    Otherwise, and after a failed recording, it is `mean_loss`.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: Tensors = {}
        self._loss = torch.zeros(())
        self._gradients: list[tuple[nn.Parameter, Tensor | None]] = []

    def __call__(self, accelerator: Accelerator, module: nn.Module, parts: list[Tensors]) -> Tensor:
        """The loss of a batch, a scalar. The gradients are in the parameters."""
        self._steps += 1
        is_possible = (
            accelerator.device.type == "cuda"
            and accelerator.num_processes == len(parts) == 1
            and accelerator.scaler is None
            and self._steps > EAGER_STEPS
        )
        if is_possible and self._graph is None:
            self._record(accelerator, module, parts[0])
        if not is_possible or self._graph is None or not self._takes(parts[0]):
            return mean_loss(accelerator, module, parts)
        for name, value in parts[0].items():
            self._given[name].copy_(value)
        self._graph.replay()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        return self._loss.clone()

    def _takes(self, part: Tensors) -> bool:
        return part.keys() == self._given.keys() and all(
            value.shape == self._given[name].shape for name, value in part.items()
        )

    def _record(self, accelerator: Accelerator, module: nn.Module, part: Tensors) -> None:
        self._given = {name: value.clone() for name, value in part.items()}
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        graph = torch.cuda.CUDAGraph()
        try:
            # On a side stream, as recording requires.
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                self._forward_and_backward(accelerator, module, parameters)
            torch.cuda.current_stream().wait_stream(beside)
            for parameter in parameters:
                parameter.grad = None
            with torch.cuda.graph(graph):
                self._loss = self._forward_and_backward(accelerator, module, parameters)
        except RuntimeError as error:
            logger.warning("the training step cannot be recorded, and is started anew each time (%s)", one_line(error))
            self._steps = -(10**9)  # not tried again
            torch.cuda.synchronize()
            for parameter in parameters:
                parameter.grad = None
            return
        self._gradients = [(parameter, parameter.grad) for parameter in parameters]
        self._graph = graph
        logger.info("the training step is recorded")

    def _forward_and_backward(
        self, accelerator: Accelerator, module: nn.Module, parameters: list[nn.Parameter]
    ) -> Tensor:
        for parameter in parameters:
            parameter.grad = None
        with accelerator.autocast():
            loss: Tensor = module(**self._given)
        loss.backward()
        return loss.detach()
