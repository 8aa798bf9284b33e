"""Small agents of SVG(1) and SVG(infinity), random paths, and a linear system."""

import torch
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.algorithms import SVG1, SVGInfinity

S, A, B, K = 3, 2, 6, 5
GAMMA = 0.9


def svg(algorithm: type, **kwargs: object) -> SVG1 | SVGInfinity:
    torch.manual_seed(0)
    small = {"hidden_sizes": [16, 16], "dynamics_hidden_sizes": [8, 8], "gamma": GAMMA}
    return algorithm(S, A, "never", **{**small, **kwargs})


def windows(k: int = K, ends: bool = True) -> TensorDict:
    """Of random paths; some end in a termination before their last step if they may."""
    path = torch.randn(B, k + 1, S)
    length = torch.randint(1, k + 1, (B,)) if ends else torch.full((B,), k)
    mask = torch.arange(k) < length.unsqueeze(-1)
    action = (torch.rand(B, k, A) * 1.8 - 0.9) * mask.unsqueeze(-1)
    return TensorDict(
        {
            "observation": path[:, 0],
            "path": path,
            "action": action,
            "reward": torch.randn(B, k) * mask,
            "log_prob": torch.randn(B, k) - 1,
            "mask": mask,
            "next": {"observation": path[torch.arange(B), length], "terminated": length < k},
        },
        batch_size=[B],
    )


def gradient(loss: Tensor, module: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()))])


def matrices() -> tuple[Tensor, ...]:
    """s' = F s + G a + noise, a = K s + noise, r = -s'Q s / 2 - a'R a / 2."""
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    q, r = normal(S, S), normal(A, A)
    return 0.4 * normal(S, S), normal(S, A), 0.3 * normal(A, S), q @ q.T, r @ r.T


def cost_to_go(steps: int) -> Tensor:
    """P of V(s) = -s'P s / 2 + constant of the linear policy: Lyapunov's recursion."""
    f, g, k, q, r = matrices()
    closed, value = f + g @ k, torch.zeros(S, S, dtype=torch.double)
    for _ in range(steps):
        value = q + k.T @ r @ k + GAMMA * closed.T @ value @ closed
    return value
