"""What inputs are standardised by."""

import torch
from torch import Tensor


def mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [D] of the columns of values [N, D]; constants' deviation is 1.

    As in the published MBPO code: divided by N, and what does not vary is only centred.
    """
    deviation, mean = torch.std_mean(values, 0, correction=0)
    return mean, torch.where(deviation < 1e-12, torch.ones_like(deviation), deviation)
