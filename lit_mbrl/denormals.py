"""Numbers below the smallest normal one, 1.2e-38 in float32, count as zero."""

import torch


def flush_denormals() -> None:
    """Let the processor take denormal numbers for zero; does nothing where it cannot.

    A unit that no longer fires has gradients of zero, and Adam's averages of them fade through the
    denormal numbers, on which some processors' arithmetic is a hundred times as slow: one step of
    Adam took nine times as long, a third of a critic's update (docs/performance.md).

    The processor holds this thread by thread, and a thread begins with what its maker has. So it
    has to be called before torch's first operation on several threads, which makes the others.
    """
    torch.set_flush_denormal(True)
