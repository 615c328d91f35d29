"""Finds declarations (recipes, export profiles, bench suites) and the folders we may write to.

The user's own file comes first, then the shipped one, so that ``recipes/deit_75.yaml`` and ``deit_75`` name the same
recipe from a checkout and from a wheel in any folder.
"""

import difflib
import os
from pathlib import Path
from typing import Literal

from ovit_deploy.errors import OvitError

Kind = Literal["recipes", "export", "bench"]
PACKAGE = Path(__file__).parent


def shipped(kind: Kind) -> Path:
    """The folder of shipped declarations: inside the wheel, or the checkout's own."""
    inside = PACKAGE / "_shipped" / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def find(kind: Kind, name: str | Path) -> Path:
    """The declaration file that ``name`` (a path, or the bare name of a shipped one) stands for.

    Raises:
        OvitError: there is no such file; the hint names the nearest shipped one.
    """
    own = Path(name)
    if own.is_file():
        return own
    if own.parent in (Path(), Path(kind)):
        candidate = shipped(kind) / f"{own.stem}.yaml"
        if candidate.is_file():
            return candidate
    names = sorted(path.stem for path in shipped(kind).glob("*.yaml"))
    near = difflib.get_close_matches(own.stem, names, n=1)
    known = f"did you mean {near[0]}? " if near else ""
    raise OvitError(f"{name}: no such file", f"{known}shipped in {kind}/: {', '.join(names)}")


def cache_dir() -> Path:
    """Where environments and downloads are kept: $OVIT_DEPLOY_CACHE, else the user's cache folder."""
    if own := os.environ.get("OVIT_DEPLOY_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovit-deploy"
