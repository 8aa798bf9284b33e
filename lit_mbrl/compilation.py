"""Functions of tensors as compiled ones: an objective with its gradient, the plans of a batch.

A gradient step on networks of this size is some hundred small operations, and nearly half of its
time on two threads is spent on handing them out. torch.compile makes one function of the objective
and its gradient, whose element-wise operations are fused; the products are the same.

On a GPU handing out what is left would still take longer than doing it. There Adam's arithmetic is
compiled too, and all updates of an environment step, or eight of the dynamics', are a CUDA graph,
which is handed out at once (`lit_mbrl.capture`).
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo
from torch._inductor import config as inductor
from torch.optim import Optimizer

from lit_mbrl.adam import FusedAdam, plain
from lit_mbrl.capture import Captured, tensors_of
from lit_mbrl.errors import first_line
from lit_mbrl.precision import float32
from lit_mbrl.products import bmm

Objective = Callable[..., Tensor | tuple[Tensor, ...]]
"""A scalar to minimise, or a tuple that begins with it, of some inputs."""

Gradient = tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]
"""What an objective returned, detached, and its gradient, None where a parameter has none."""

Step = tuple[tuple[Tensor, ...], Tensor | None]
"""What an objective returned, detached, and the norm of its gradient, if it was asked for."""


def gradient(objective: Objective, parameters: Sequence[Tensor], *inputs: Any) -> Gradient:
    """An objective of some inputs and its gradient by some parameters."""
    outputs = objective(*inputs)
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    with float32(outputs[0]):  # gradients have the precision that the forward pass chose
        found = torch.autograd.grad(outputs[0], parameters, allow_unused=True)
    return tuple(output.detach() for output in outputs), found


def set_gradients(parameters: Sequence[Tensor], found: Sequence[Tensor | None]) -> None:
    """Give the parameters their gradients, laid out in memory as they are.

    Torch's fused Adam on a CPU walks through both as they lie, so that a transposed gradient would
    step the wrong weights.
    """
    for parameter, part in zip(parameters, found, strict=True):
        if part is not None and part.stride() != parameter.stride():
            part = torch.empty_like(parameter).copy_(part)
        parameter.grad = part


class Compiler:
    """Calls functions: compiled ones, once it is enabled.

    A function is compiled when it is first called, for the shapes and numbers of that call; once
    more for others. Where compiling fails it runs without, after one line that says so; where that
    is for want of a C++ compiler, nothing else in the process is tried. What is compiled draws the
    random numbers that it would draw otherwise, and agrees to rounding.

    What a function reads besides its inputs must be modules, and numbers that never change. Inputs
    are tensors, TensorDicts, tuples and modules, of few different shapes, and a few numbers.

    Attributes:
        enabled: Whether to compile.
    """

    def __init__(self) -> None:
        self.enabled = False
        self._compiled: dict[Place, _Compiled] = {}
        self._captured: dict[Place, Captured] = {}

    def step(
        self,
        name: str,
        objective: Objective,
        optimizer: Optimizer,
        *inputs: Any,
        max_norm: float | None = None,
    ) -> Step:
        """One step of an optimizer on `objective(*inputs)`.

        Args:
            name: What to call it in messages.
            objective: A function or method, the same one at each call.
            optimizer: Gradients are computed for its parameters alone.
            inputs: Of the objective.
            max_norm: Largest norm of the gradient; larger ones are scaled down to it.

        Returns:
            What the objective returned, detached, and the norm of its gradient before the scaling,
            where that was asked for.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        outputs, found = self.gradient(name, objective, parameters, *inputs)
        set_gradients(parameters, found)
        norm = None if max_norm is None else nn.utils.clip_grad_norm_(parameters, max_norm)
        if self.enabled and parameters[0].is_cuda and isinstance(optimizer, FusedAdam):
            optimizer.step(arithmetic=self._adam)
        else:
            optimizer.step()
        return outputs, norm

    def _adam(self, parameters: list[Tensor], *others: Any) -> None:
        key = tuple(map(id, parameters))  # those of a group that had gradients
        self._call("a step of Adam", key, plain, (parameters, *others))

    def gradient(
        self, name: str, objective: Objective, parameters: Sequence[Tensor], *inputs: Any
    ) -> Gradient:
        """As the function `gradient`.

        Args:
            name: What to call it in messages.
            objective: A function or method, the same one at each call.
            parameters: Those to differentiate by.
            inputs: Of the objective.
        """
        if not self.enabled:
            return gradient(objective, parameters, *inputs)

        def with_gradient(*inputs: Any) -> Gradient:
            return gradient(objective, parameters, *inputs)

        found: Gradient = self._call(name, objective, with_gradient, inputs)
        return found

    @torch.no_grad()
    def call(self, name: str, function: Callable[..., Any], *inputs: Any) -> Any:
        """What a function returns, without gradients.

        Args:
            name: What to call it in messages.
            function: A function or method, the same one at each call.
            inputs: Of the function.
        """
        return self._call(name, function, function, inputs) if self.enabled else function(*inputs)

    def capture(self, name: str, function: Callable[..., Any], *inputs: Any) -> Any:
        """What a function returns: one of many steps and calls, on a GPU as a graph of them all.

        Args:
            name: What to call it in messages.
            function: See `Captured`; the same one at each call.
            inputs: Of the function.
        """
        if not (self.enabled and torch.cuda.is_available()):
            return function(*inputs)
        tensors = tensors_of(inputs)
        if not tensors[0].is_cuda:
            return function(*inputs)
        shapes = tuple(tensor.shape for tensor in tensors)
        place = torch.is_autocast_enabled("cuda"), shapes, *_place(name, function, inputs)
        if place not in self._captured:
            self._captured[place] = Captured(name, function)
        return self._captured[place](*inputs)

    def _call(
        self, name: str, key: Any, function: Callable[..., Any], inputs: tuple[Any, ...]
    ) -> Any:
        place = _place(name, key, inputs)
        if place not in self._compiled:
            self._compiled[place] = _Compiled(name, function)
        return self._compiled[place](*inputs)


Place = tuple[Any, ...]
"""Where what was made of a function is kept, for inputs of one kind."""

SAME = int | float | nn.Module | Optimizer
"""Inputs of which a function is made for each, and not for their kind."""


def _place(name: str, key: Any, inputs: tuple[Any, ...]) -> Place:
    shapes = (getattr(value, "shape", None) for value in inputs)
    same = (value for value in inputs if isinstance(value, SAME))
    return name, key, *shapes, *same


class _Compiled:
    impossible = False  # whether one has found that there is no compiler

    def __init__(self, name: str, function: Callable[..., Any]):
        # Of C++ these are threads of this process, each of which waits for a compiler.
        inductor.compile_threads = torch.get_num_threads()
        dynamo.trace_autograd_ops = True
        self._name, self._function = name, function
        options: dict[str, Any] = {"fallback_random": True, "guard_filter_fn": _looked_up}
        if torch.__version__ < "2.13":  # which would draw random numbers in another order
            options["reorder_for_locality"] = False
        self._compiled = torch.compile(
            _apart(function), fullgraph=True, dynamic=False, options=options
        )
        self._ready: Callable[..., Any] = self._first

    def __call__(self, *inputs: Any) -> Any:
        return self._ready(*inputs)

    def _first(self, *inputs: Any) -> Any:
        if _Compiled.impossible:
            self._ready = self._function
            return self._function(*inputs)
        began = time.monotonic()
        try:
            _replace_products()
            found = self._compiled(*inputs)
        except Exception as error:  # torch's compilers have no common class of errors
            _Compiled.impossible = _lacks_compiler(error)
            what = f"{self._name} could not be compiled and runs without"
            if _Compiled.impossible:
                what = "nothing can be compiled here, and all runs without"
            print(f"{what}: {first_line(error)}", file=sys.stderr, flush=True)
            self._ready = self._function
            return self._function(*inputs)
        print(f"compiled {self._name} in {time.monotonic() - began:.1f} s", flush=True)
        self._ready = self._compiled
        return found


def _lacks_compiler(error: BaseException | None) -> bool:
    """Whether an error is, or came of, torch's for a missing C++ compiler."""
    from torch._inductor.exc import InvalidCxxCompiler  # takes a second to import

    while error is not None and not isinstance(error, InvalidCxxCompiler):
        error = error.__cause__ or error.__context__
    return error is not None


def _replace_products() -> None:
    """Have compiled code call our `bmm` for torch's, which it looks up at each call."""
    # Here, since they take seconds to import, and in this order: the first one defines it.
    import torch._inductor.kernel.bmm  # noqa: F401
    from torch._inductor.select_algorithm import extern_kernels

    extern_kernels.bmm = bmm  # type: ignore[attr-defined]


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function with code of its own, by which torch finds what it has compiled."""

    def call(*inputs: Any) -> Any:
        return function(*inputs)

    call.__code__ = call.__code__.replace()
    return call


def _looked_up(guards: Sequence[Any]) -> list[bool]:
    """Which of its assumptions torch looks up at each call: numbers, and its global state.

    Not modules' classes and hooks and the kinds of tensors, which cannot change between calls of
    one name, objective and shape, and take a fortieth of a critic's update. (Compiled code asserts
    the sizes and strides of what it is given.)
    """
    numbers = "EQUALS_MATCH", "CONSTANT_MATCH"
    return [
        guard.guard_type == "GLOBAL_STATE" or (guard.guard_type in numbers and not guard.is_global)
        for guard in guards
    ]
