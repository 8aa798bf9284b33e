"""Model-based reinforcement learning on PyTorch Lightning."""

from lit_mbrl.mkl import use_intel_kernels

MKL_KERNELS = use_intel_kernels()  # has to be before torch is loaded
"""Which of the kernels for Intel's processors MKL was made to run on one of AMD, if any."""
