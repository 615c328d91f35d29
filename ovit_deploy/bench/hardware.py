"""What a benchmark ran on: recorded with every result, because a latency means nothing without it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from ovit_deploy.engines.environments import cpu_flags
from ovit_deploy.errors import OvitError

INSTRUCTIONS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
PACKAGES = ("ovit-deploy", "numpy", "onnx", "onnxruntime", "torch", "timm", "numba")
BUSY = 0.5


def describe() -> dict[str, Any]:
    """CPU, cores, memory, load, Python and packages of this machine, ready for JSON."""
    flags = cpu_flags()
    return {
        "cpu": cpu_name(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "physical_cores": psutil.cpu_count(logical=False),
        "usable_cores": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_busy(hardware: dict[str, Any]) -> bool:
    """Whether other work took half of the cores or more in the minute before."""
    return hardware["load_average"][0] >= BUSY * hardware["usable_cores"]


def require_cores(threads: int) -> None:
    """Refuse more threads than this process may run on.

    Raises:
        OvitError: there are fewer cores.
    """
    if threads > usable_cores():
        raise OvitError(f"{threads} threads on {usable_cores()} usable cores", f"--threads {usable_cores()}")


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's model name, as the kernel gives it."""
    if not cpuinfo.is_file():
        return platform.processor() or platform.machine()
    lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return lines[0].split(":", 1)[1].strip() if lines else platform.machine()


def package_versions() -> dict[str, str]:
    """Versions of the packages that matter here; those not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
