"""Which engines are here, in which version, and how to install the others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ovit_deploy.engines import ENGINES, cuda
from ovit_deploy.engines.base import Option, Traits
from ovit_deploy.engines.environments import is_complete, location


@dataclass(frozen=True)
class Status:
    """An engine on this machine.

    Args:
        engine: its name.
        version: of the installed distribution; None where there is none.
        licence: of the runtime.
        install: the command that installs it.
        reads: kind of file: ``onnx`` or ``checkpoint``.
        place: folder of its own environment; None if it lives in ours.
        options: by name.
        refusal: why it cannot run on this machine, installed or not; empty if it can.
    """

    engine: str
    version: str | None
    licence: str
    install: str
    reads: str
    place: Path | None
    options: dict[str, Option]
    refusal: str = ""

    @property
    def present(self) -> bool:
        """Whether it is installed."""
        return self.version is not None


def status(engine: str) -> Status:
    """What there is of ``engine``; nothing is imported, started or installed."""
    traits = ENGINES[engine]
    place = location(engine) if traits.pins else None
    version = _version_in(place, traits) if place else _own_version(traits.package)
    if traits.compiled is not None and not (Path(__file__).parent / traits.compiled).is_file():
        version = None
    refusal = cuda.refusal() if traits.gpu else ""
    return Status(engine, version, traits.licence, traits.install, traits.reads, place, traits.options, refusal)


def _own_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _version_in(place: Path, traits: Traits) -> str | None:
    """The version in an environment that was made to the end; its folder of packages tells."""
    if not is_complete(place, traits.pins):
        return None
    folders = [str(path) for path in place.glob("lib/python3.*/site-packages")]
    found = [each.version for each in metadata.distributions(path=folders) if _is(each, traits.package)]
    return found[0] if found else None


def _is(distribution: metadata.Distribution, package: str) -> bool:
    return re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower() == package
