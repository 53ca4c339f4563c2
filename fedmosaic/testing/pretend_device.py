"""A second device, "far", for tests on machines without a GPU.

A tensor on "far:0" consists of a tensor on the processor, which computes its values. An operation on tensors of both
devices raises RuntimeError, as on a GPU. So a tensor that was not moved fails a test. Results equal those of the
processor, except where torch chooses another kernel for a device (attention).

Importing this module registers the device for the process.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("far")
torch.get_device_module("far").get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
FAR = torch.device("far:0")
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
"""The operations that accept tensors of both devices."""


class FarTensor(Tensor):
    """A tensor on "far:0". near: the tensor on the processor that it consists of."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> "FarTensor":
        made: FarTensor = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, dtype=near.dtype, device=FAR, strides=near.stride(), storage_offset=near.storage_offset()
        )
        made.near = near
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"FarTensor({self.near!r})"

    def tolist(self) -> Any:
        """The values as Python numbers. torch's own method does not accept subclasses."""
        return self.near.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Pretend(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, args, kwargs or {})


class _Constructors(TorchFunctionMode):
    """`torch.tensor(..., device="far")`, which does not reach the other mode."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        device = options.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and torch.device(device).type == FAR.type:
            return func(*args, **{**options, "device": "cpu"}).to(FAR)
        return func(*args, **options)


@contextmanager
def pretended() -> Iterator[torch.device]:
    """A context in which tensors can be made on "far:0" and moved there and back. Gives the device."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        with _Constructors(), _Pretend():  # type: ignore[no-untyped-call]
            yield FAR
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def _run(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The result of one operation of torch.

    Raises RuntimeError when its tensors, except single numbers, are on both devices.
    """
    tensors = [found for found in tree_flatten((args, kwargs))[0] if isinstance(found, Tensor)]
    far = [found for found in tensors if isinstance(found, FarTensor)]
    near = [found for found in tensors if not isinstance(found, FarTensor) and found.dim() > 0]
    if far and near and func not in MOVES:
        shapes = [tuple(found.shape) for found in near]
        raise RuntimeError(f"{func}: tensors on {FAR} and, of shapes {shapes}, on the processor")
    wanted = kwargs.get("device")
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    given, options = tree_map(lambda value: value.near if isinstance(value, FarTensor) else value, (args, kwargs))
    result = func(*given, **options)
    if func._schema.name.endswith("_") and args and isinstance(args[0], Tensor):  # type: ignore[attr-defined]
        return args[0]
    on_far = bool(far) if wanted is None else torch.device(wanted).type == FAR.type
    return tree_map(_moved, result) if on_far else result


def _moved(value: Any) -> Any:
    return FarTensor(value) if isinstance(value, Tensor) and not isinstance(value, FarTensor) else value
