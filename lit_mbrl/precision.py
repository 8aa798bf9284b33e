"""Mixed precision: what stays in float32 under `trainer.precision: bf16-mixed`.

Lightning's autocast covers `training_step`; `Retraining` covers fits and imagination with it. Under
it the products of hidden layers with hidden layers are bfloat16; nearly
all of the time goes there. Networks read their inputs and write their outputs in float32: bfloat16
cannot tell 1.000 from 1.003, and a state, a value or a log-variance needs more. So targets,
log-probabilities, scalers, losses, gradients of parameters and optimizers are float32.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn


def float32(tensor: Tensor) -> AbstractContextManager[None]:
    """A context in which nothing on the tensor's device is autocast."""
    return torch.autocast(tensor.device.type, enabled=False)


class Float32Linear(nn.Linear):
    """A linear layer that autocast leaves alone."""

    def forward(self, input: Tensor) -> Tensor:
        """Outputs [..., out] in float32 for inputs [..., in] of any precision."""
        with float32(input):
            return super().forward(input.float())
