"""What POPLIN-P searches among (arXiv 1906.08649): sequences of policies near one policy."""

from typing import Any

from torch import Tensor

from lit_mbrl.networks import PolicyNetwork
from lit_mbrl.planning.scoring import ImaginedReturn
from lit_mbrl.precision import float32


class PerturbedReturn(ImaginedReturn):
    """Scores sequences of parameters by the mean return of following their policies.

    Where other plans have an action for each of H steps, these have a change of the policy's
    parameters, [B, N, H, P]: the action is what the changed policy does in the state it is in. All
    policies of a step are evaluated together.

    Args:
        policy: Whose parameters theta are changed.
        scale: The change is `scale` times what is searched for, which lies in [-1, 1].
        arguments: As for `ImaginedReturn`.
        named: As for `ImaginedReturn`.
    """

    def __init__(self, policy: PolicyNetwork, scale: float, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self.policy, self.scale = policy, scale

    def act(self, observation: Tensor, change: Tensor) -> Tensor:
        """Actions [C, R, A] in [-1, 1] of the policies changed by [C, P] at [C, R, S]."""
        theta = self.policy.theta + self.scale * change
        return self.policy(observation, theta).clamp(-1, 1)

    def _act(self, observation: Tensor, planned: Tensor) -> Tensor:
        # The particles of a policy share its parameters.
        particles = observation.view(self.particles, len(planned), -1).transpose(0, 1)
        with float32(particles):
            action = self.act(particles, planned).transpose(0, 1)
        return action.reshape(len(observation), -1)
