"""The weight of the entropy."""

import math

import torch
from torch import Tensor, nn

from lit_mbrl.errors import require


class Temperature(nn.Module):
    """alpha: learned towards a target entropy (arXiv 1812.05905, Eq. 18) or fixed.

    Eq. 18 has alpha before the gap; as in the published codes of SAC, MBPO and MPPVE it is
    log alpha here, which moves the same way.

    Args:
        initial: First value; 0 leaves the entropy out (only if it is fixed).
        learned: Whether it is a parameter.
    """

    log_value: Tensor

    def __init__(self, initial: float, learned: bool):
        super().__init__()
        require(
            initial > 0 or (initial == 0 and not learned),
            "model.initial_temperature",
            initial,
            "a number > 0, or 0 if model.target_entropy is null",
        )
        log_initial = torch.tensor(math.log(initial) if initial > 0 else -math.inf)
        if learned:
            self.log_value = nn.Parameter(log_initial)
        else:
            self.register_buffer("log_value", log_initial)
        self.learned = learned

    def forward(self) -> Tensor:
        """alpha as a scalar without gradient."""
        return self.log_value.detach().exp()

    def loss(self, log_prob: Tensor, target_entropy: float) -> Tensor:
        """Falls as alpha grows while the entropy of log_prob [B] is below the target."""
        return -(self.log_value * (log_prob.detach() + target_entropy)).mean()
