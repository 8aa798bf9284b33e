"""A device that is as strict as a GPU, simulated on the processor.

Its tensors hold tensors of the processor, which do the work: so what is computed there is the same.
But tensors of two devices do not meet, no array of numpy's is made of them, and whatever a
processor would wait for until the device has come so far is put down in `WAITS`: values that are
read, shapes that depend on values, copies that are not asynchronous.

Importing it makes the device known to torch, and an accelerator and a strategy of that name to
Lightning.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.accelerators import AcceleratorRegistry, CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy, StrategyRegistry
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

NAME = "simulated"
SOURCES = [str(Path(__file__).parents[1] / name) for name in ("lit_mbrl", "callbacks")]

WAITS: list[str] = []
"""For what, and the line of this project that made it."""

aten = torch.ops.aten
READS = {
    aten._local_scalar_dense.default,
    aten._unique2.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten.unique_dim.default,
}
INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}


class Backend(backend_registration._DummyBackendModule):
    """What `torch.simulated` is."""

    def synchronize(self, device: object = None) -> None:
        wait("all")

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
DEVICE = torch.device(NAME, 0)


class Simulated(Tensor):
    """A tensor of the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Simulated":
        made: Simulated = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=DEVICE,
        )
        made.held = held
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved as what it holds: where a checkpoint is read, no such device may be."""
        wait("a copy to the processor")
        return self.held.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return execute(function, args, kwargs or {})


def execute(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One of torch's functions, of tensors or for tensors of the device."""
    if function in (aten._to_copy.default, aten.copy_.default):
        return copy(function, args, kwargs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    elsewhere = [t.shape for t in tensors if not isinstance(t, Simulated) and t.dim()]
    if elsewhere:
        raise RuntimeError(f"{function}: beside tensors of the device one of the processor's")
    masks = [t for t in tensors[1:] if t.dtype == torch.bool] if function in INDEXED else []
    if function in READS or masks:
        wait(str(function))
    held, names = tree_map(down, args), tree_map(down, kwargs)
    known = {id(tensor.held): tensor for tensor in tensors if isinstance(tensor, Simulated)}
    return tree_map(lambda x: up(x, known), function(*held, **names))


def copy(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Within the device, to it or from it."""
    if function is aten.copy_.default:
        into, source, *rest = args
        asynchronous, here = any(rest) or kwargs.get("non_blocking", False), is_here(into)
    else:
        source, asynchronous = args[0], kwargs.get("non_blocking", False)
        device = kwargs.get("device")
        here = is_here(source) if device is None else torch.device(device).type == NAME
    if is_here(source) and not here:
        wait("a copy to the processor")
    elif here and not is_here(source) and not asynchronous:
        wait("a copy to the device")
    found = function(*tree_map(down, args), **tree_map(down, kwargs))
    if function is aten.copy_.default:
        return into
    return Simulated(found) if here else found


def is_here(tensor: Tensor) -> bool:
    return isinstance(tensor, Simulated)


def down(x: Any) -> Any:
    """What stands for it on the processor."""
    if isinstance(x, Simulated):
        return x.held
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == NAME else x


def up(x: Any, known: dict[int, Simulated]) -> Any:
    """What it is on the device: of functions in place, the tensor itself."""
    if not isinstance(x, Tensor):
        return x
    return known[id(x)] if id(x) in known else Simulated(x)


def wait(reason: str) -> None:
    frames = [f for f in traceback.extract_stack() if f.filename.startswith(tuple(SOURCES))]
    where = f"{Path(frames[-1].filename).name}, {frames[-1].name}" if frames else "elsewhere"
    WAITS.append(f"{reason} ({where})")


def of_numbers(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch.tensor and its like ask no device for its functions: a copy afterwards."""

    def made(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        here = device is not None and torch.device(device).type == NAME
        if not here:
            return make(*args, device=device, **kwargs)
        return make(*args, **kwargs).to(device)

    return made


class SimulatedAccelerator(CPUAccelerator):
    """One simulated device."""

    @staticmethod
    def get_parallel_devices(devices: object) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def name() -> str:
        return NAME

    def setup_device(self, device: torch.device) -> None:
        pass


LIBRARY = torch.library.Library("_", "IMPL")  # kept, for it takes back what it has registered
LIBRARY.fallback(lambda function, *args, **kwargs: execute(function, args, kwargs), "PrivateUse1")
torch.tensor, torch.as_tensor = of_numbers(torch.tensor), of_numbers(torch.as_tensor)
AcceleratorRegistry.register(NAME, SimulatedAccelerator)
StrategyRegistry.register(NAME, SingleDeviceStrategy, device=DEVICE)
