"""What all tests share."""

import logging

# TorchRL reports every storage it allocates.
logging.getLogger("torchrl").setLevel(logging.WARNING)
