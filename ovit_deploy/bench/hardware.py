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
PACKAGES = ("ovit-deploy", "numpy", "onnx", "onnxruntime", "openvino", "torch", "timm", "numba")
BUSY = 0.5
SYS_CPU, CGROUPS = Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup")


def describe() -> dict[str, Any]:
    """CPU, cores, clock, limits, memory, load, Python and packages of this machine, ready for JSON.

    What the system does not tell is None: a virtual machine often hides clock and governor.
    """
    flags = cpu_flags()
    return {
        "cpu": cpu_name(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "physical_cores": psutil.cpu_count(logical=False),
        "usable_cores": usable_cores(),
        "quota_cores": quota_cores(),
        "governor": _text(SYS_CPU / "cpu0/cpufreq/scaling_governor"),
        "max_mhz": _mhz(SYS_CPU / "cpu0/cpufreq/cpuinfo_max_freq"),
        "virtual": "hypervisor" in flags,
        "autogroup": _text(Path("/proc/sys/kernel/sched_autogroup_enabled")) == "1",
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": package_versions(),
    }


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(usable()) or os.cpu_count() or 1


def usable() -> list[int]:
    """Numbers of the cores that this process may run on; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def siblings(core: int) -> str:
    """Which physical core ``core`` is part of, as the kernel writes its threads: ``0,4``."""
    return _text(SYS_CPU / f"cpu{core}/topology/thread_siblings_list") or str(core)


def cgroup_folders(controller: str = "cpu") -> list[Path]:
    """The folders of this process's control group, innermost first, up to the root of what is mounted here."""
    for line in (_text(Path("/proc/self/cgroup")) or "").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        root = CGROUPS / controller if names else CGROUPS
        inner = root / path.lstrip("/")
        found = [folder for folder in (inner, *inner.parents) if folder.is_relative_to(root) and folder.is_dir()]
        if any((folder / "cpu.stat").is_file() for folder in found):
            return found
    return []


def quota_cores() -> float | None:
    """How many cores' worth of time the control groups allow; None for no limit (cgroup v2's cpu.max, v1's cfs)."""
    limits = []
    for folder in cgroup_folders():
        quota, period = (_text(folder / "cpu.max") or "max 100000").split()
        if quota == "max":
            quota, period = (_text(folder / f"cpu.cfs_{name}_us") or "-1" for name in ("quota", "period"))
        if float(quota) > 0:
            limits.append(float(quota) / float(period))
    return min(limits, default=None)


def is_busy(hardware: dict[str, Any]) -> bool:
    """Whether other work took half of the cores or more in the minute before a result; ``noise`` looks closer."""
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


def _text(path: Path) -> str | None:
    """What a file of the kernel says; None where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _mhz(path: Path) -> float | None:
    khz = _text(path)
    return float(khz) / 1000 if khz else None
