"""The faults of a device, and what helps against each one."""

import torch

from common.errors import DeviceError

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
REMEDIES = {
    "driver version is insufficient": "the GPU's driver is too old for the installed torch: update the driver, or "
    "install a torch for an older CUDA",
    "no kernel image is available": "the installed torch has no code for this model of GPU: install another build of "
    "torch, or use --device cpu",
    "all CUDA-capable devices are busy or unavailable": "another process has exclusive use of the GPU: end it, or "
    "choose another device (--device)",
    "does not have a deterministic implementation": "this device has no deterministic kernel for an operation of the "
    "model: set train.deterministic to false, or use --device cpu",
    "device-side assert": "an operation on the GPU failed its check, usually an index out of range: run once with "
    "--device cpu, which names the operation",
    "CUDA error": "the GPU stopped working during the computation (a fault of the GPU, its driver, or a GPU that was "
    "removed): `nvidia-smi` and `dmesg` show more",
    "CUDNN_STATUS": "the GPU's library cuDNN failed: often the GPU's memory is full (`nvidia-smi`)",
    "MPS backend": "the GPU refused an operation: use --device cpu",
}
"""By a part of torch's message, the reason and what helps. The first match counts."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation failed because the memory of its device, or of the machine, was full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in OUT_OF_MEMORY)


def device_error(error: BaseException) -> DeviceError | None:
    """An error of a device as a text, with what helps; None for another error."""
    if is_out_of_memory(error):
        first = (str(error) or type(error).__name__).splitlines()[0][:200]
        return DeviceError(
            f"the memory of the site's device is full: lower train.batch_size, end other programs on this device, or "
            f"choose another one with --device ({first})"
        )
    said = explained(error)
    return DeviceError(said) if said else None


def explained(error: BaseException) -> str:
    """The reason for an error of a device and what helps, with the first line of torch's message; "" for another
    error."""
    if not isinstance(error, RuntimeError):
        return ""
    said = str(error)
    for part, remedy in REMEDIES.items():
        if part in said:
            return f"{remedy} ({said.splitlines()[0][:200]})"
    return ""
