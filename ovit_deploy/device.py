"""Where a model computes: a CUDA device, or the CPU."""

from typing import TYPE_CHECKING

from ovit_deploy.errors import ModelError

if TYPE_CHECKING:
    import torch


def choose(name: str | None) -> "torch.device":
    """The device of ``--device``; without a name the first CUDA device, or the CPU where there is none.

    Raises:
        ModelError: there is no such device here, or it does not compute in float64, which pruning needs.
    """
    import torch

    if name is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"--device {name}: no such device", "give cpu, cuda, or cuda:1 for the second GPU") from error
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"--device {name}: only cpu and cuda compute in float64", "give cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices",
            "give cpu, or install a CUDA build of torch and the driver",
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def describe(device: "torch.device") -> str:
    """For people and records: ``cpu``, or ``cuda:0 (NVIDIA H100)``."""
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def free_memory(device: "torch.device") -> int:
    """Bytes that a process could still have there."""
    import psutil
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
