"""Numbers below the smallest normal one."""

import subprocess
import sys

import pytest
import torch

TINY = """
import torch
from lit_mbrl.fit import prepare_process
{call}
torch.set_num_threads(2)
tiny = torch.full((1_000_000,), 1e-39)  # enough for an operation on both threads
print(int((tiny * 1.0).count_nonzero()))
"""


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot")
@pytest.mark.parametrize(("call", "left"), [("prepare_process()", 0), ("", 1_000_000)])
def test_they_are_zero_on_every_thread_of_a_prepared_process(call: str, left: int) -> None:
    """And are not zero where nothing was said."""
    program = [sys.executable, "-c", TINY.format(call=call)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert int(done.stdout) == left
