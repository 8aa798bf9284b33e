"""Learned dynamics: the probabilistic ensemble and its fitting."""

from lit_mbrl.dynamics.ensemble import Dynamics
from lit_mbrl.dynamics.fitting import FitReport, fit
from lit_mbrl.dynamics.frozen import FrozenNetworks

__all__ = ["Dynamics", "FitReport", "FrozenNetworks", "fit"]
