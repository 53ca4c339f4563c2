"""The facts about a device that a person needs when its computation is slow or fails: driver and memory."""

import shutil
import subprocess
from pathlib import Path

import torch

NVIDIA_SMI = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
SECONDS = 20.0
"""The maximum time for an answer of the driver."""
MEMORY, PROCESS = Path("/proc/meminfo"), Path("/proc/self/status")
"""The memory of the machine and of this process, in lines such as "MemTotal:  16303428 kB"."""


def software(device: torch.device) -> str:
    """The software of a device: for a GPU of NVIDIA its driver and CUDA, e.g. "driver 580.65.06, CUDA 13.0"; "" for
    other devices."""
    return f"driver {driver() or 'unknown'}, CUDA {torch.version.cuda}" if device.type == "cuda" else ""


def driver() -> str:
    """The version of NVIDIA's driver. It is "" without the program nvidia-smi, or when the program does not find a
    driver."""
    if shutil.which(NVIDIA_SMI[0]) is None:
        return ""
    try:
        done = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


def memory(device: torch.device) -> tuple[int, int] | None:
    """The free and the total bytes of a device's memory; None if they are unknown. The memory of the processor is that
    of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    if device.type == "mps":
        total = int(torch.mps.recommended_max_memory())
        return total - int(torch.mps.driver_allocated_memory()), total
    free, total = _entry(MEMORY, "MemAvailable"), _entry(MEMORY, "MemTotal")
    return (free, total) if device.type == "cpu" and free and total else None


def peak_bytes(device: torch.device) -> int:
    """The largest number of bytes of the device's memory that this process has held; 0 if it is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    return _entry(PROCESS, "VmHWM") if device.type == "cpu" else 0


def _entry(file: Path, name: str) -> int:
    """The bytes of one entry of a file of the kernel; 0 if there is no such file or entry."""
    try:
        lines = [line.partition(":") for line in file.read_text().splitlines()]
    except OSError:  # the kernel is not Linux
        return 0
    return next((int(value.split()[0]) << 10 for key, _, value in lines if key == name), 0)
