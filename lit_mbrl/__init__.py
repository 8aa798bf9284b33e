"""Model-based reinforcement learning on PyTorch Lightning."""

from lit_mbrl.mkl import use_avx512

MKL_ANSWERED = use_avx512()  # has to be before torch is loaded
"""Whether MKL was made to run its AVX-512 kernels on a processor of AMD."""
