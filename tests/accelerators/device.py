"""The device that is tested: this machine's GPU, or a simulated one. To be imported before anything that uses torch."""

import torch

from tests.accelerators import simulated

if torch.cuda.is_available():
    DEVICE, NEAR = "cuda", 0.05  # its convolutions round to TF32
else:
    simulated.use()
    DEVICE, NEAR = simulated.NAME, 1e-4
