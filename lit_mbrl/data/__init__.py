"""Where experience comes from: environment, collector, replay buffers, batches."""

from lit_mbrl.data.module import ReplayData
from lit_mbrl.data.replay import EnvironmentReplay, ImaginedReplay
from lit_mbrl.data.windows import windows_from

__all__ = ["EnvironmentReplay", "ImaginedReplay", "ReplayData", "windows_from"]
