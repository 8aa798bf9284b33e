"""The returns that papers state in their text, each with its place; none is read off a figure."""

from typing import NamedTuple

MPPVE = "Lin et al., Model-based reinforcement learning with multi-step plan value estimation"
S2VG = "S2VG: soft stochastic value gradient method"


class Stated(NamedTuple):
    """A return that a paper states.

    Attributes:
        algorithm: As in the paper.
        task: With the version that the paper used.
        mean_return: Stated in all cases as approximate.
        env_steps: When it is reached; None if stated as the final one.
        source: The paper.
        place: Where in it.
    """

    algorithm: str
    task: str
    mean_return: float
    env_steps: int | None
    source: str
    place: str


STATED = [
    Stated("MPPVE", "Hopper-v3", 2700, 30_000, MPPVE, "section 5.1"),
    Stated("BMPO", "Hopper-v3", 2700, 45_000, MPPVE, "section 5.1"),
    Stated("MBPO", "Hopper-v3", 2700, 60_000, MPPVE, "section 5.1"),
    Stated("SAC", "Hopper-v3", 1000, 100_000, MPPVE, "section 5.1"),
    Stated("GPM", "Hopper-v3", 1000, 100_000, MPPVE, "section 5.1"),
    Stated("S2VG", "Hopper-v2", 3300, None, S2VG, "section 5.2"),
    Stated("SAC", "Hopper-v2", 2000, None, S2VG, "section 5.2"),
    Stated("S2VG", "HalfCheetah-v2", 8000, 200_000, S2VG, "section 5.2"),
    Stated("S2VG", "Walker2d-v2", 2900, 300_000, S2VG, "section 5.2"),
    Stated("SLBO", "Walker2d-v2", 2900, 300_000, S2VG, "section 5.2"),
]


def stated_for(task: str) -> list[Stated]:
    """What is stated for a task in any of its versions."""
    return [stated for stated in STATED if _unversioned(stated.task) == _unversioned(task)]


def _unversioned(task: str) -> str:
    return task.rpartition("-v")[0] or task
