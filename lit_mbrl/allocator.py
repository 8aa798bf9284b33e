"""When the C library hands freed memory back to the system: not at every gradient step."""

import ctypes
import gc
import sys
from typing import Any

import torch

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let glibc reuse the pages of freed tensors; does nothing where there is no glibc.

    A gradient step allocates and frees the same megabytes again and again. By default glibc gives
    the larger blocks back and the next step pays for fresh pages: about a tenth of an update step
    of MPPVE on two cores.
    """
    if (mallopt := _glibc("mallopt")) is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value that glibc takes
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_TOP_PAD, 64 * 2**20)


def forget_earlier_runs() -> None:
    """Free the buffers of runs that this process has made, and hand their memory back.

    They refer to themselves, so that Python would free them at some later time. Torch keeps what it
    has compiled for as long as the process lives, some 4 MiB a run of the smallest networks.
    """
    torch.compiler.reset()
    gc.collect()
    if (malloc_trim := _glibc("malloc_trim")) is not None:
        malloc_trim(0)


def _glibc(name: str) -> Any:
    """A function of glibc; None where there is none."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
