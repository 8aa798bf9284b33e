"""How MLflow loads a trained policy: this file is stored beside the program, and needs no other."""

import numpy as np
import torch


class LoadedPolicy:
    """A policy as `mlflow.pyfunc` wants it.

    Args:
        path: Of a program that `torch.export.save` wrote.
    """

    def __init__(self, path: str):
        self.act = torch.export.load(path).module()

    def predict(self, observation: np.ndarray) -> np.ndarray:
        """Actions [B, A] for observations [B, S], in the task's units."""
        action: np.ndarray = self.act(torch.tensor(observation, dtype=torch.float32)).numpy()
        return action


def _load_pyfunc(path: str) -> LoadedPolicy:
    """MLflow's hook."""
    return LoadedPolicy(path)
