"""What all tests share."""

import logging
import os

# The networks of the tests are tiny: more threads would only wait for each other. Set before torch
# is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# TorchRL reports every storage it allocates.
logging.getLogger("torchrl").setLevel(logging.WARNING)
