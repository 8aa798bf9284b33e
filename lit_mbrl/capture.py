"""Functions of tensors on a GPU as CUDA graphs, for which the processor's part is one launch.

A gradient step on networks of this size is some fifty kernels of a few microseconds each, and a
processor needs longer to hand them out one by one than the GPU to run them.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from lit_mbrl.errors import first_line


class Captured:
    """A function as a CUDA graph, from its second call on.

    The first call runs the function, because what it needs is made then: compiled code, the states
    of an optimizer. The second captures it, and from then on the graph is run on copies of the
    inputs. What the function reads and writes besides must stay where it is in memory, and Python's
    part of it is not run again. Random numbers are those that the function itself would draw.

    Where a function cannot be captured, as it waits for the GPU, it runs without, after one line
    that says so.

    Args:
        name: What to call it in messages.
        function: Of tensors, TensorDicts, tuples of them, and of values that are the same at each
            call. It returns tensors, None, or tuples of them.
    """

    def __init__(self, name: str, function: Callable[..., Any]):
        self._name, self._function = name, function
        self._inputs: tuple[Any, ...] | None = None
        self._places: list[Tensor] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Any = None
        self._refused = False

    def __call__(self, *inputs: Any) -> Any:
        """What the function returns, in memory of its own."""
        if self._refused:
            return self._function(*inputs)
        first = self._inputs is None
        if self._inputs is None:
            self._inputs = tuple(_like(value) for value in inputs)
            self._places = tensors_of(self._inputs)
        with torch.no_grad():
            torch._foreach_copy_(self._places, tensors_of(inputs))
        if first:
            return self._function(*self._inputs)
        if self._graph is None and not self._capture():
            return self._function(*inputs)
        assert self._graph is not None
        self._graph.replay()
        with torch.no_grad():
            return _cloned(self._outputs)

    def _capture(self) -> bool:
        assert self._inputs is not None
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        # cuBLAS keeps its workspace, which lies in the last graph's memory and would go with it.
        torch._C._cuda_clearCublasWorkspaces()
        try:
            with _capturing(graph):
                self._outputs = self._function(*self._inputs)
        except RuntimeError as error:
            message = f"{self._name} could not be captured and runs without: {first_line(error)}"
            print(message, file=sys.stderr, flush=True)
            self._graph_refused = graph  # the allocator may still refer to it
            # For torch's random generator the capture goes on, until another one ends.
            with suppress(RuntimeError), _capturing(torch.cuda.CUDAGraph()):
                torch.zeros(1, device="cuda")
            torch.cuda.set_stream(stream)  # torch leaves the one of the capture in its place
            self._refused = True
            return False
        self._graph = graph
        return True


def _capturing(graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
    """A context to capture in."""
    # Other threads, which may evaluate or log, are none of its business.
    return torch.cuda.graph(graph, capture_error_mode="thread_local")


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of an input, always in the same order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, TensorDictBase):
        return list(value.values(include_nested=True, leaves_only=True))
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in tensors_of(part)]
    return []


def _like(value: Any) -> Any:
    """An input of the same kind, whose tensors have memory of their own."""
    if isinstance(value, Tensor):
        return torch.empty_like(value, requires_grad=False)
    if isinstance(value, TensorDictBase):
        return value.apply(torch.empty_like)
    if isinstance(value, tuple):
        return _tuple(value, _like)
    return value


def _cloned(value: Any) -> Any:
    if isinstance(value, tuple):
        return _tuple(value, _cloned)
    return value.clone() if isinstance(value, Tensor) else value


def _tuple(value: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """A tuple of the same kind, such as a `Plan`, of changed parts."""
    parts = (change(part) for part in value)
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
