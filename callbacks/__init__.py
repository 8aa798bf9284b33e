"""When things happen: schedules, retraining, evaluation, checkpoints, progress, timing.

The folder is installed as `lit_mbrl.callbacks`, so that a `callbacks` of the user's own does not
stand in its way.
"""

from .checkpoint import EnvStepCheckpoint
from .compilation import Compilation
from .diagnosis import Diagnosis
from .evaluation import Evaluation
from .filming import Filming
from .progress import Progress
from .registration import Registration
from .results import Results
from .retraining import Retraining
from .rollout_length import RolloutLength
from .throughput import Throughput

__all__ = [
    "Compilation",
    "Diagnosis",
    "EnvStepCheckpoint",
    "Evaluation",
    "Filming",
    "Progress",
    "Registration",
    "Results",
    "Retraining",
    "RolloutLength",
    "Throughput",
]
