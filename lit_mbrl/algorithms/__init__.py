"""The algorithms, one file each."""

from lit_mbrl.algorithms.agent import Agent
from lit_mbrl.algorithms.mbpo import MBPO
from lit_mbrl.algorithms.mppve import MPPVE
from lit_mbrl.algorithms.sac import SAC

__all__ = ["MBPO", "MPPVE", "SAC", "Agent"]
