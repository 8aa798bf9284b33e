"""Keeps the C library from handing freed memory back to the system at every gradient step."""

import ctypes
import sys

# Numbers of glibc's malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Let glibc reuse the pages of freed tensors; does nothing where there is no glibc.

    A gradient step allocates and frees the same megabytes again and again. By default glibc gives
    the larger blocks back and the next step pays for fresh pages: about a tenth of an update step
    of MPPVE on two cores.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value that glibc takes
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_TOP_PAD, 64 * 2**20)
