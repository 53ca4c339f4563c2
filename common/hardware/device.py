"""The device that a site, or the server, computes with. Each machine chooses its own device."""

import logging
from functools import lru_cache

import torch

from common.errors import DeviceError

log = logging.getLogger(__name__)
AUTO, CPU = "auto", "cpu"
FREE_BYTES = 2 << 30
"""The smallest free memory of a GPU that `auto` takes."""


def find_device(name: str) -> torch.device:
    """The device of a name: auto, cpu, cuda, cuda:N, mps, or another device that torch knows.

    `auto` is the GPU with the most free memory. It is the processor if there is no GPU or no GPU has 2 GiB of free
    memory.

    Raises DeviceError when the device is unknown, absent or unusable.
    """
    if name == AUTO:
        return _free_gpu() or _mps() or torch.device(CPU)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"device {name!r} is unknown: use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == CPU:
        return torch.device(CPU)
    if not _is_available(device.type):
        raise DeviceError(f"device {name}: {_absent(device.type)}")
    count = torch.get_device_module(device.type).device_count()
    if (device.index or 0) >= count:
        raise DeviceError(f"device {name}: this machine has {count} of type {device.type}, numbered from 0")
    return torch.device(device.type, device.index or 0)


def described(device: torch.device) -> str:
    """The device for logs and reports, e.g. "cuda:0 (NVIDIA H100)"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def held_bytes(device: torch.device) -> int:
    """The bytes of the device's memory that this process holds; 0 for the processor."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return int(torch.mps.driver_allocated_memory()) if device.type == "mps" else 0


def release(device: torch.device) -> None:
    """Return unused memory of the device to other processes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@lru_cache
def _is_available(kind: str) -> bool:
    """Whether torch can use a kind of device."""
    try:
        return bool(torch.get_device_module(kind).is_available())
    except (RuntimeError, AttributeError):  # torch was built without it
        return False


def _absent(kind: str) -> str:
    if kind != "cuda":
        return f"torch finds no device of type {kind} on this machine"
    if torch.version.cuda is None:
        return f"the installed torch {torch.__version__} is built without CUDA"
    return (
        f"torch finds no usable NVIDIA GPU. The installed torch {torch.__version__} needs a driver for CUDA "
        f"{torch.version.cuda}; `nvidia-smi` shows the GPUs and the driver, and a container needs the option --gpus"
    )


def _free_gpu() -> torch.device | None:
    """The GPU with the most free memory; None if none has enough."""
    if not _is_available("cuda"):
        return None
    free = {}
    for index in range(torch.cuda.device_count()):
        try:
            free[index] = torch.cuda.mem_get_info(index)[0]
        except RuntimeError as error:  # e.g. another process has exclusive use of the GPU
            log.warning("cuda:%d is not used: %s", index, str(error).splitlines()[0])
    best = max(free, key=free.__getitem__, default=None)
    if best is None or free[best] < FREE_BYTES:
        log.warning("no GPU has %d bytes of free memory: computing on the processor", FREE_BYTES)
        return None
    return torch.device("cuda", best)


def _mps() -> torch.device | None:
    return torch.device("mps", 0) if _is_available("mps") else None
