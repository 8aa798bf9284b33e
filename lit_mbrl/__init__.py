"""Model-based reinforcement learning on PyTorch Lightning."""

from lit_mbrl.mkl import use_avx512

use_avx512()  # has to be before torch is loaded
