"""Times plans of TorchRL's CEM and of ours through the same network, in turns.

    python benchmarks/against_torchrl.py --horizons 3 30

One network of PETS's size for HalfCheetah, one particle, five iterations, a tenth of the candidates
as elites, one start. TorchRL's planner asks an environment for its rollouts, so the network is put
into one; both draw s' from its Gaussian. TorchRL's returns an action, ours a plan and the start of
the next search.
"""

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl

import argparse
import sys
from itertools import product
from typing import Any

import torch
from phases import seconds
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.modules import CEMPlanner

from lit_mbrl.dynamics import Dynamics
from lit_mbrl.planning import CEM, ImaginedReturn, Problem

S, A, ITERATIONS = 17, 6, 5


class Imagined(EnvBase):
    """The network as an environment of TorchRL's, for as many states at once as it is given."""

    def __init__(self, dynamics: Dynamics):
        super().__init__(batch_size=torch.Size([]))
        self.dynamics = dynamics
        self._batch_locked = False
        self.observation_spec = Composite(observation=Unbounded((S,)))
        self.action_spec = Bounded(-1.0, 1.0, (A,))
        self.reward_spec = Unbounded((1,))
        ends = {key: Categorical(2, (1,), dtype=torch.bool) for key in ("done", "terminated")}
        self.done_spec = Composite(ends)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        assert tensordict is not None
        return tensordict.select("observation", "done", "terminated")

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        shape = tensordict.shape
        parts = (tensordict[key].flatten(0, -2) for key in ("observation", "action"))
        following, reward, ended = self.dynamics.step(*parts)
        ended = ended.view(*shape, 1)
        found = {"reward": reward.view(*shape, 1), "done": ended, "terminated": ended}
        return TensorDict({"observation": following.view(*shape, S), **found}, shape)

    def _set_seed(self, seed: int | None) -> None:
        pass


@torch.no_grad()
def measure(horizon: int, candidates: int, least: float, rounds: int) -> tuple[float, float]:
    """The least milliseconds that a plan of ours and of TorchRL's took in so many turns."""
    dynamics = Dynamics(S, A, "never", [200] * 4, [0.0] * 5, networks=1, elites=1)
    planner = CEM(horizon, candidates, candidates // 10, ITERATIONS)
    problem = Problem(ImaginedReturn(dynamics, "ts1", particles=1), A)
    theirs = CEMPlanner(Imagined(dynamics), horizon, ITERATIONS, candidates, candidates // 10)
    ends = {key: torch.zeros(1, 1, dtype=torch.bool) for key in ("done", "terminated")}
    start = TensorDict({"observation": torch.zeros(1, S), **ends}, [1])
    ours: list[float] = []
    torchrls: list[float] = []
    for _ in range(rounds):
        ours.append(1e3 * seconds(lambda: planner(problem, start["observation"]), least))
        torchrls.append(1e3 * seconds(lambda: theirs.planning(start), least))
    return min(ours), min(torchrls)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--horizons", type=int, nargs="+", default=[3, 30])
    parser.add_argument("--candidates", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--least", type=float, default=1.0, help="seconds that a plan is timed for")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print("| H | N | ours, ms | TorchRL's, ms | ratio |\n|---|---|---|---|---|")
    for horizon, candidates in product(given.horizons, given.candidates):
        ours, theirs = measure(horizon, candidates, given.least, given.rounds)
        row = f"{ours:.3g} | {theirs:.3g} | {theirs / ours:.3g}"
        print(f"| {horizon} | {candidates} | {row} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
