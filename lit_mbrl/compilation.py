"""An objective and its gradient as one compiled function.

A gradient step on networks of this size is some hundred small operations, and nearly half of its
time on two threads is spent on handing them out. torch.compile makes one function of the objective
and its gradient, whose element-wise operations are fused; the products are the same.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._dynamo import config as dynamo
from torch._inductor import config as inductor

from lit_mbrl.precision import float32

Objective = Callable[..., Tensor | tuple[Tensor, ...]]
"""A scalar to minimise, or a tuple that begins with it, of some inputs."""

Gradient = tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]
"""What an objective returned, detached, and its gradient, None where a parameter has none."""


def gradient(objective: Objective, parameters: Sequence[Tensor], *inputs: Any) -> Gradient:
    """An objective of some inputs and its gradient by some parameters."""
    outputs = objective(*inputs)
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    with float32(outputs[0]):  # gradients have the precision that the forward pass chose
        found = torch.autograd.grad(outputs[0], parameters, allow_unused=True)
    return tuple(output.detach() for output in outputs), found


class Gradients:
    """`gradient` for those that take gradient steps: compiled once `compiles` is set.

    An objective is compiled when it is first called, for the shapes and numbers of that call; once
    more for others. Where compiling fails it runs without, after one line that says so. What is
    compiled draws the random numbers that `gradient` would draw and agrees with it to rounding.

    Attributes:
        compiles: Whether to compile.
    """

    def __init__(self) -> None:
        self.compiles = False
        self._compiled: dict[tuple[Any, ...], _Compiled] = {}

    def __call__(
        self, name: str, objective: Objective, parameters: Sequence[Tensor], *inputs: Any
    ) -> Gradient:
        """As `gradient`.

        Args:
            name: What to call the objective in messages.
            objective: A function or method, the same one at each call. What it reads besides its
                inputs must be modules, and numbers that never change.
            parameters: Those to differentiate by.
            inputs: Tensors, TensorDicts, tuples and modules, of few different shapes; numbers, of
                which there are few too.
        """
        if not self.compiles:
            return gradient(objective, parameters, *inputs)
        key = name, objective, *(getattr(value, "shape", None) for value in inputs)
        key += tuple(value for value in inputs if isinstance(value, int | float))
        if key not in self._compiled:
            self._compiled[key] = _Compiled(name, objective, parameters)
        return self._compiled[key](*inputs)


class _Compiled:
    def __init__(self, name: str, objective: Objective, parameters: Sequence[Tensor]):
        # One process is enough for a few functions, and leaves none behind beside the run.
        inductor.compile_threads = 1
        dynamo.trace_autograd_ops = True

        def uncompiled(*inputs: Any) -> Gradient:
            return gradient(objective, parameters, *inputs)

        self._name = name
        self._uncompiled = uncompiled
        self._compiled = torch.compile(
            uncompiled, fullgraph=True, dynamic=False, options={"fallback_random": True}
        )
        self._ready: Callable[..., Gradient] = self._first

    def __call__(self, *inputs: Any) -> Gradient:
        return self._ready(*inputs)

    def _first(self, *inputs: Any) -> Gradient:
        began = time.monotonic()
        try:
            found: Gradient = self._compiled(*inputs)
        except Exception as error:  # torch's compilers have no common class of errors
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            message = f"the gradient steps of {self._name} could not be compiled and run without"
            print(f"{message}: {reason}", file=sys.stderr, flush=True)
            self._ready = self._uncompiled
            return self._uncompiled(*inputs)
        seconds = time.monotonic() - began
        print(f"compiled the gradient steps of {self._name} in {seconds:.1f} s", flush=True)
        self._ready = self._compiled
        return found
