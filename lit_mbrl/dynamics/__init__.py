"""Learned dynamics: the probabilistic ensemble and its fitting."""

from lit_mbrl.dynamics.ensemble import Dynamics
from lit_mbrl.dynamics.fitting import FitReport, fit
from lit_mbrl.dynamics.frozen import FrozenNetworks
from lit_mbrl.dynamics.noise import infer_noise, step_with_noise

__all__ = ["Dynamics", "FitReport", "FrozenNetworks", "fit", "infer_noise", "step_with_noise"]
