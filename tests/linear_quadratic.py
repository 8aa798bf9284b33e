"""A linear-Gaussian system with quadratic values, where the right answers are known."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

S, A, GAMMA = 3, 2, 0.9


class System(nn.Module):
    """s' = F s + G a + noise and r = -s^T U s - a^T V a, as a model; Q of a value -s^T P s behind.

    Everything is in double precision.

    Args:
        noise: Deviation of the noise of each part of s'.
    """

    def __init__(self, noise: float = 0.0):
        super().__init__()
        draw = torch.Generator().manual_seed(0)

        def matrix(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=draw)

        def definite(size: int) -> Tensor:
            root = matrix(size, size)
            return root @ root.T / size

        self.F = nn.Parameter(0.4 * matrix(S, S))
        self.G = 0.5 * matrix(S, A)
        self.U, self.V, self.P = definite(S), definite(A), definite(S)
        self.noise = noise

    def reward(self, state: Tensor, action: Tensor) -> Tensor:
        return -quadratic(state, self.U) - quadratic(action, self.V)

    def mean(self, state: Tensor, action: Tensor) -> Tensor:
        return state @ self.F.T + action @ self.G.T

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Dynamics.step`."""
        following = self.mean(state, action)
        following = following + self.noise * torch.randn_like(following)
        ended = torch.zeros(state.shape[:-1], dtype=torch.bool)
        return following, self.reward(state, action), ended

    def value(self, state: Tensor) -> Tensor:
        return -quadratic(state, self.P)

    def q(self, state: Tensor, action: Tensor) -> Tensor:
        """r + gamma V(s') without noise, [...]."""
        return self.reward(state, action) + GAMMA * self.value(self.mean(state, action))


class Quadratic(nn.Module):
    """A critic of one member: `System.q` of observations [B, S] and plans [B, 1, A]."""

    def __init__(self, system: System):
        super().__init__()
        self.system = [system]  # not a part of it

    def forward(self, observation: Tensor, plan: Tensor) -> Tensor:
        return self.system[0].q(observation, plan[:, 0]).unsqueeze(0)


class LinearActor(nn.Module):
    """pi(a|s) = N(K s, std^2)."""

    def __init__(self, gain: Tensor, std: float = 0.0):
        super().__init__()
        self.gain, self.std = nn.Parameter(gain.clone()), std

    def mode(self, state: Tensor) -> Tensor:
        return state @ self.gain.T

    def forward(self, state: Tensor) -> Tensor:
        return self.mode(state)

    def sample(self, state: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mode(state)
        noise = torch.randn_like(mean)
        scale = math.log(max(self.std, 1e-9)) + 0.5 * math.log(2 * math.pi)
        return mean + self.std * noise, -(0.5 * noise.square() + scale).sum(-1)


class GaussianActor(LinearActor):
    """pi(a|s) = N(K s, exp(2 (C s + b))): its deviation is learned and may depend on the state."""

    def __init__(self, gain: Tensor, slope: Tensor, log_std: Tensor):
        super().__init__(gain)
        self.slope, self.log_std = nn.Parameter(slope.clone()), nn.Parameter(log_std.clone())

    def sample(self, state: Tensor) -> tuple[Tensor, Tensor]:
        log_std = state @ self.slope.T + self.log_std
        half = torch.randn_like(log_std[::2])
        noise = torch.cat([half, -half])  # mirrored: the mean over rows has less error
        log_prob = -(0.5 * noise.square() + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)
        return self.mode(state) + log_std.exp() * noise, log_prob


def quadratic(x: Tensor, matrix: Tensor) -> Tensor:
    """x^T M x of [..., N]."""
    return ((x @ matrix) * x).sum(-1)


def policy_gradients(
    system: System, gains: Sequence[Tensor], second_moment: Tensor, std: float
) -> list[Tensor]:
    """d/dK_h of E[sum_{h < n} gamma^h r_h + gamma^n V(s_n)] with a_h = K_h s_h + std noise.

    With cost-to-go matrices M_n = P, M_h = U + K_h^T V K_h + gamma L_h^T M_{h+1} L_h, where
    L_h = F + G K_h, it is -2 gamma^h (V K_h + gamma G^T M_{h+1} L_h) E[s_h s_h^T].

    Args:
        system: With or without noise.
        gains: K_0..K_{n-1}, each [A, S].
        second_moment: E[s_0 s_0^T] [S, S].
        std: Deviation of the actions' noise.
    """
    F, G = system.F.detach(), system.G
    closed = [F + G @ K for K in gains]
    moments, costs = [second_moment], [system.P]
    spread = system.noise**2 * torch.eye(S, dtype=F.dtype) + std**2 * G @ G.T
    for L in closed[:-1]:
        moments.append(L @ moments[-1] @ L.T + spread)
    for K, L in zip(reversed(gains), reversed(closed), strict=True):
        costs.insert(0, system.U + K.T @ system.V @ K + GAMMA * L.T @ costs[0] @ L)
    return [
        -2 * GAMMA**h * (system.V @ K + GAMMA * G.T @ costs[h + 1] @ L) @ moments[h]
        for h, (K, L) in enumerate(zip(gains, closed, strict=True))
    ]


def soft_value(
    system: System, actors: Sequence[GaussianActor], state: Tensor, alpha: float
) -> Tensor:
    """E[sum_{h < n} gamma^h (r_h + alpha H_h) + gamma^n V(s_n)] from a state [S], differentiable.

    H_h is the entropy of the h-th actor at s_h. With s_h ~ N(m, X) its mean is that at m, and the
    mean of the j-th action's variance is exp(2 (C m + b)_j + 2 (C X C^T)_jj). The states are
    Gaussian up to s_1, and all of them where the deviations do not depend on them: so it is exact
    for n = 2, and for C = 0 with any n, the gradient by C included.
    """
    F, G, value = system.F.detach(), system.G, torch.zeros((), dtype=state.dtype)
    mean, covariance = state, torch.zeros(S, S, dtype=state.dtype)
    for h, actor in enumerate(actors):
        K, C = actor.gain, actor.slope
        log_std = C @ mean + actor.log_std
        noise = (2 * log_std + 2 * (C @ covariance @ C.T).diagonal()).exp().diag()
        second = covariance + mean.outer(mean)
        cost = (system.U @ second).trace() + (system.V @ (K @ second @ K.T + noise)).trace()
        entropy = log_std.sum() + 0.5 * A * math.log(2 * math.pi * math.e)
        value = value + GAMMA**h * (alpha * entropy - cost)
        L = F + G @ K
        mean, covariance = L @ mean, L @ covariance @ L.T + G @ noise @ G.T
    end = covariance + mean.outer(mean)
    return value - GAMMA ** len(actors) * (system.P @ end).trace()
