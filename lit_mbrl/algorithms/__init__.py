"""The algorithms, one file each."""

from lit_mbrl.algorithms.agent import Agent
from lit_mbrl.algorithms.ddpg import DDPG
from lit_mbrl.algorithms.loop import LOOP
from lit_mbrl.algorithms.loopsarsa import LOOPSARSA
from lit_mbrl.algorithms.maac import MAAC
from lit_mbrl.algorithms.mbpo import MBPO
from lit_mbrl.algorithms.mpdp import MPDP
from lit_mbrl.algorithms.mppve import MPPVE
from lit_mbrl.algorithms.pets import PETS
from lit_mbrl.algorithms.poplina import POPLINA
from lit_mbrl.algorithms.poplinp import POPLINP
from lit_mbrl.algorithms.s2vg import S2VG
from lit_mbrl.algorithms.sac import SAC
from lit_mbrl.algorithms.sacmppve import SACMPPVE
from lit_mbrl.algorithms.sacmve import SACMVE
from lit_mbrl.algorithms.sacmvempi import SACMVEMPI
from lit_mbrl.algorithms.steve import STEVE
from lit_mbrl.algorithms.svg1 import SVG1
from lit_mbrl.algorithms.svginfinity import SVGInfinity

__all__ = [
    "DDPG",
    "LOOP",
    "LOOPSARSA",
    "MAAC",
    "MBPO",
    "MPDP",
    "MPPVE",
    "PETS",
    "POPLINA",
    "POPLINP",
    "S2VG",
    "SAC",
    "SACMPPVE",
    "SACMVE",
    "SACMVEMPI",
    "STEVE",
    "SVG1",
    "Agent",
    "SVGInfinity",
]
