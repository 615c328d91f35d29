"""Resident memory of this process: now, and the most since it was last asked to start counting."""

from pathlib import Path

from ovit_deploy.errors import OvitError

PROCESS = Path("/proc/self")


def start_counting() -> int:
    """Forget the peak so far; returns the resident memory in bytes at this moment.

    Raises:
        OvitError: there is no Linux ``/proc``.
    """
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError as error:
        raise OvitError(
            f"peak memory cannot be measured here: {error.strerror}", "use Linux with /proc/self/clear_refs"
        ) from None
    return _bytes("VmRSS")


def peak() -> int:
    """The most resident memory since then, in bytes."""
    return _bytes("VmHWM")


def _bytes(field: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
