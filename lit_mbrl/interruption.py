"""SIGINT and SIGTERM: the step is finished and kept, and the process says how it ended."""

import os
import signal
import sys
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """Training was stopped by a signal, after a checkpoint.

    Args:
        signum: The signal's number.
        env_step: Environment step that the checkpoint holds.
    """

    def __init__(self, signum: int, env_step: int):
        super().__init__(f"{signal.Signals(signum).name} after environment step {env_step:,}")
        self.signum, self.env_step = signum, env_step


class Interruption:
    """A context that notes the first SIGINT or SIGTERM; a second one ends the process at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signum: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        self._handlers = {number: signal.getsignal(number) for number in self.SIGNALS}
        self.listen()
        return self

    def listen(self) -> None:
        """Be the only one to hear the signals; Lightning puts a handler before those of others."""
        for number in self.SIGNALS:
            signal.signal(number, self._note)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            os._exit(128 + signum)
        self.signum = signum
        print(
            f"{signal.Signals(signum).name}: finishing this environment step and writing a "
            "checkpoint; once more to end at once",
            file=sys.stderr,
            flush=True,
        )
