"""Networks that the algorithms compose: actors, critics, temperature, batched MLP."""

from lit_mbrl.networks.actor import Actor
from lit_mbrl.networks.critic import Critic
from lit_mbrl.networks.deterministic_actor import DeterministicActor
from lit_mbrl.networks.gaussian import GaussianMLP
from lit_mbrl.networks.mlp import EnsembleMLP
from lit_mbrl.networks.policy_network import PolicyNetwork
from lit_mbrl.networks.standardisation import mean_and_deviation
from lit_mbrl.networks.temperature import Temperature
from lit_mbrl.networks.value import Value

__all__ = [
    "Actor",
    "Critic",
    "DeterministicActor",
    "EnsembleMLP",
    "GaussianMLP",
    "PolicyNetwork",
    "Temperature",
    "Value",
    "mean_and_deviation",
]
