"""What the tests of value expansion share: small agents, batches and training steps for them."""

import torch
from pytorch_lightning import Trainer
from tensordict import TensorDict
from torch import Tensor, nn

from lit_mbrl.algorithms import Agent
from lit_mbrl.networks import Critic

S, A, B = 3, 2, 12
SMALL = {"hidden_sizes": [16, 16]}
MODEL = {
    **SMALL,
    "dynamics_hidden_sizes": [8],
    "dynamics_weight_decay": [0.0, 0.0],
    "dynamics_networks": 3,
    "dynamics_elites": 2,
}


def falls_below_zero(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    """Ends an episode where the first coordinate is negative."""
    return next_observation[..., 0] < 0


FALLS = f"{__name__}.falls_below_zero"


def transitions(
    k: int = 1, batch: int = B, observation_size: int = S, action_size: int = A
) -> TensorDict:
    return TensorDict(
        {
            "observation": torch.randn(batch, observation_size),
            "action": torch.rand(batch, k, action_size) * 2 - 1,
            "reward": torch.randn(batch, k),
            "mask": torch.ones(batch, k, dtype=torch.bool),
            "next": {
                "observation": torch.randn(batch, observation_size),
                "terminated": torch.rand(batch) < 0.3,
            },
        },
        batch_size=[batch],
    )


def train(agent: Agent, batch: TensorDict) -> dict[str, Tensor]:
    """The weights after a training step whose draws are always the same."""
    agent.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    agent.trainer.fit_loop.epoch_loop.batch_progress.total.ready = 1  # the first environment step
    agent.configure_optimizers()
    torch.manual_seed(1)
    agent.training_step(batch, 0)
    return agent.state_dict()


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor], *parts: str) -> bool:
    """Whether the weights of the parts are the same, to the last bit."""
    names = [name for name in theirs if name.split(".")[0] in parts]
    assert {name.split(".")[0] for name in names} == set(parts)
    return all(torch.equal(ours[name], theirs[name]) for name in names)


def q(critic: Critic, network: int, state: Tensor, action: Tensor) -> Tensor:
    """Q(s, a) of one of the critics at one state [S] and action [A], layer by layer."""
    x = torch.cat([state, action])
    layers = list(zip(critic.ensemble.weights, critic.ensemble.biases, strict=True))
    for weight, bias in layers[:-1]:
        x = (x @ weight[network] + bias[network, 0]).relu()
    weight, bias = layers[-1]
    return (x @ weight[network] + bias[network, 0])[0]


def move(*modules: nn.Module) -> None:
    """Away from what they are copies of."""
    for module in modules:
        for weight in module.parameters():
            weight.data += 0.3 * torch.randn_like(weight)


def assert_critic_follows(agent: Agent, batch: TensorDict, loss: Tensor) -> None:
    """That a training step takes the critic's gradient from this loss, and from nothing else."""
    expected = torch.autograd.grad(loss, list(agent.critic.parameters()))
    train(agent, batch.unsqueeze(0))
    assert all(part.norm() > 1e-2 for part in expected)
    for weight, part in zip(agent.critic.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, part, rtol=1e-4, atol=1e-5)
