"""What a task shows that is at fault."""

import numpy as np


def spoiled(fault: str | None, observation: np.ndarray, reward: float) -> tuple[np.ndarray, float]:
    """What a step returns, [S] and a number, as a fault has it; as it is where that is another's.

    Raises:
        RuntimeError: If that is the fault.
    """
    match fault:
        case "raises in step":
            raise RuntimeError("the arm fell off")
        case "NaN observation":
            observation[1] = np.nan
        case "infinite observation":
            observation[2] = -np.inf
        case "infinite reward":
            reward = float("inf")
        case "NaN reward":
            reward = float("nan")
        case "larger observation":
            observation = np.zeros(len(observation) + 1, observation.dtype)
    return observation, reward
