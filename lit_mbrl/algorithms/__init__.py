"""The algorithms, one file each."""

from lit_mbrl.algorithms.agent import Agent
from lit_mbrl.algorithms.loop import LOOP
from lit_mbrl.algorithms.loopsarsa import LOOPSARSA
from lit_mbrl.algorithms.mbpo import MBPO
from lit_mbrl.algorithms.mppve import MPPVE
from lit_mbrl.algorithms.pets import PETS
from lit_mbrl.algorithms.poplina import POPLINA
from lit_mbrl.algorithms.poplinp import POPLINP
from lit_mbrl.algorithms.sac import SAC

__all__ = [
    "LOOP",
    "LOOPSARSA",
    "MBPO",
    "MPPVE",
    "PETS",
    "POPLINA",
    "POPLINP",
    "SAC",
    "Agent",
]
