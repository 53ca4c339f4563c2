"""How a process computes: its device, its threads, and whether the results have the same bits every time.

Deterministic: one thread and only deterministic kernels. On the processor, the same seed, release and kind of processor
give the same bits with every engine. On one model of GPU, they give the same bits with the same versions of torch and
of the driver. Otherwise, torch takes the fastest kernels and all cores, and results differ by rounding errors.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from common.errors import DeviceError
from common.hardware.device import AUTO, CPU, find_device

CUBLAS_VARIABLE, CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
"""The setting with which matrix products of CUDA are deterministic. CUDA reads it when the process first uses it."""
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The share of the cores that a container may use: microseconds per period, or "max"."""


@dataclass(frozen=True)
class Hardware:
    """The hardware that a site, or the server, has chosen.

    device: auto, cpu, cuda, cuda:N or mps. threads: threads of one process if the computation is not deterministic; 0:
    one thread per core. deterministic: whether the computation of an experiment that leaves `train.deterministic` open
    is deterministic.
    """

    device: str = CPU
    threads: int = 0
    deterministic: bool = True

    @classmethod
    def of_node(cls, settings: Mapping[str, object]) -> "Hardware":
        """The hardware in a node's configuration. A node without these settings takes a free GPU and is fast.

        Raises DeviceError when the number of threads is no number.
        """
        threads = str(settings.get("threads", 0))
        if not threads.isdecimal():
            raise DeviceError(f"the node's configuration: threads={threads!r} is not a number of threads")
        return cls(str(settings.get("device", AUTO)), int(threads), settings.get("deterministic", "no") == "yes")

    def settings(self) -> dict[str, str]:
        """The node's configuration."""
        deterministic = "yes" if self.deterministic else "no"
        return {"device": self.device, "threads": str(self.threads), "deterministic": deterministic}

    def use(self, deterministic: bool | None = None, tf32: bool = False) -> torch.device:
        """Prepare this process for the computation, and return its device.

        deterministic: the choice of the experiment. tf32: whether matrix products of float32 may round their factors to
        10 bits (NVIDIA GPUs since 2020).

        Raises DeviceError.
        """
        if self.deterministic if deterministic is None else deterministic:
            compute_deterministically()
        else:
            _compute_fast(self.threads or cores())
        precision = "tf32" if tf32 else "ieee"
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
        return find_device(self.device)


def compute_deterministically() -> None:
    """Compute with one thread and with deterministic kernels, until the next call of `Hardware.use`."""
    os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_WORKSPACE)
    torch.set_num_threads(1)
    _choose_kernels(deterministic=True)


def _compute_fast(threads: int) -> None:
    torch.set_num_threads(threads)
    _choose_kernels(deterministic=False)


def _choose_kernels(deterministic: bool) -> None:
    # Not use_deterministic_algorithms, because it also loads torch's compiler, which takes seconds.
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.backends.cudnn.benchmark = not deterministic
    # The gradients of these two kernels of attention have no fixed order of addition.
    torch.backends.cuda.enable_flash_sdp(not deterministic)
    torch.backends.cuda.enable_mem_efficient_sdp(not deterministic)


@contextmanager
def restored() -> Iterator[None]:
    """Restore at the end what `Hardware.use` changes in this process."""
    threads, determinism = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    benchmark = torch.backends.cudnn.benchmark
    flash = torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
    efficient = torch.backends.cuda.mem_efficient_sdp_enabled()  # type: ignore[no-untyped-call]
    products = torch.backends.cuda.matmul.fp32_precision
    convolutions = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(determinism)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cuda.enable_flash_sdp(flash)
        torch.backends.cuda.enable_mem_efficient_sdp(efficient)
        torch.backends.cuda.matmul.fp32_precision = products
        torch.backends.cudnn.conv.fp32_precision = convolutions  # type: ignore[attr-defined]


def cores() -> int:
    """The number of cores that this process may use: those of its affinity, at most the quota of its container."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or no quota
        return allowed
