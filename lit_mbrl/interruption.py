"""SIGINT, SIGTERM, SIGHUP: the step is finished and kept, and the process says how it ended."""

import os
import signal
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """Training was stopped by a signal, after a checkpoint if one could be written.

    Args:
        signum: The signal's number.
        env_step: The last environment step.
        saved: Whether a checkpoint holds it.
    """

    def __init__(self, signum: int, env_step: int, saved: bool):
        advice = "go on with the same command and --ckpt_path last" if saved else "not saved"
        name = signal.Signals(signum).name
        super().__init__(f"{name} after environment step {env_step:,}; {advice}")
        self.signum = signum


def signals() -> list[signal.Signals]:
    """Those that end a run: SIGINT, SIGTERM and, but where nohup has it ignored, SIGHUP."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hangs_up else [])]


class Interruption:
    """A context that notes the first of the signals; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        self._handlers = {number: signal.getsignal(number) for number in signals()}
        self.listen()
        return self

    def listen(self) -> None:
        """Be the only one to hear the signals; Lightning puts a handler before those of others."""
        for number in self._handlers:
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
        line = (
            f"{signal.Signals(signum).name}: finishing this environment step and writing a "
            "checkpoint; once more to end at once\n"
        )
        # Not print: this may come in the middle of another's, and a pipe may be gone by now.
        with suppress(OSError):
            os.write(2, line.encode())
