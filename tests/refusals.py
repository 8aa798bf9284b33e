"""What the tests of refusals share: a user's own module, and what a refusal is."""

from pathlib import Path

CONF = Path(__file__).parents[1] / "conf"
MPPVE = ["--config", str(CONF / "mppve.yaml")]

USERS_MODULE = """
import gymnasium
from gymnasium.spaces import Box

from lit_mbrl.algorithms import SAC, Agent


class Toy(gymnasium.Env):
    def __init__(self, observations=(3,), largest_action=1.0):
        self.observation_space = Box(-1, 1, observations)
        self.action_space = Box(-largest_action, largest_action, (2,))


class Aimless(Agent):
    def __init__(self, observation_size: int):
        super().__init__()


class Broken(SAC):
    def __init__(self, observation_size: int, action_size: int):
        raise KeyError("a bug")


gymnasium.register("Images-v0", Toy, kwargs={"observations": (8, 8, 3)})
gymnasium.register("Unbounded-v0", Toy, kwargs={"largest_action": float("inf")})
"""


def assert_refused(status: int, out: str, err: str, expected: tuple[str, ...]) -> None:
    """One line that names the option first, what was given and what is allowed; and no run."""
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith(f"error: {expected[0]}"), err
    for words in expected[1:]:
        assert words in err
    assert list(Path.cwd().iterdir()) == []
