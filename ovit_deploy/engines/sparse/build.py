"""Compiles native/ into shared libraries, one for every level of instruction set: a hook of the package's build.

    python ovit_deploy/engines/sparse/build.py     # by hand, after a change; with $CXX, $CXXFLAGS, $LDFLAGS if set

Without a C++17 compiler the package is built all the same; the engine then says how to get one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = HERE / "native"
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi", "-shared", "-fPIC")
LINK = ("-fvisibility=hidden", "-pthread")
X86_LEVELS: dict[str, tuple[str, ...]] = {
    "portable": ("-march=x86-64",),
    "avx2": ("-march=x86-64-v3",),
    "avx512": ("-march=x86-64-v4", "-mavx512vnni"),
}
# library.py gives a processor the last one that it can run.
LEVELS: dict[str, tuple[str, ...]] = (
    X86_LEVELS if platform.machine().lower() in ("x86_64", "amd64") else {"portable": ()}
)


def library(level: str, folder: Path = HERE) -> Path:
    """Where a level's library is, or would be."""
    return folder / f"_native_{level}.so"


def build(folder: Path = HERE, extra: tuple[str, ...] = (), levels: tuple[str, ...] = tuple(LEVELS)) -> list[Path]:
    """Compile what is not up to date.

    Args:
        folder: Where the libraries go.
        extra: More flags, such as sanitizers.
        levels: Which of LEVELS.

    Raises:
        FileNotFoundError: There is no compiler.
        subprocess.CalledProcessError: It refused the sources.
    """
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise FileNotFoundError("no C++ compiler")
    asked = shlex.split(os.environ.get("CXXFLAGS", "")) + shlex.split(os.environ.get("LDFLAGS", ""))
    made = []
    for level in levels:
        command = [compiler, *FLAGS, *LEVELS[level], *LINK, *asked, *extra, str(SOURCES / "api.cpp")]
        target, stamp = library(level, folder), library(level, folder).with_suffix(".stamp")
        wanted = _digest(command)
        if not (target.is_file() and stamp.is_file() and stamp.read_text() == wanted):
            unfinished = target.with_suffix(f".{os.getpid()}")
            subprocess.run([*command, "-o", str(unfinished)], check=True)
            unfinished.replace(target)
            stamp.write_text(wanted)
        made.append(target)
    return made


def _digest(command: list[str]) -> str:
    """Of the sources and of how they are compiled."""
    found = hashlib.sha256(repr(command[:-1]).encode())
    for source in sorted(SOURCES.iterdir()):
        found.update(source.read_bytes())
    return found.hexdigest()


def get_build_hook() -> type[Any]:
    """For hatchling."""
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class NativeLibraries(BuildHookInterface):
        """Libraries beside their sources, and a wheel for this platform; a pure wheel without a compiler."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile before the files are gathered."""
            if self.target_name != "wheel":
                return
            try:
                made = build()
            except (OSError, subprocess.CalledProcessError) as error:
                self.app.display_warning(f"the sparse engine is left out: {error}; everything else works")
                return
            build_data["artifacts"] += [str(path.relative_to(self.root)) for path in made]
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag()}"

    return NativeLibraries


def _platform_tag() -> str:
    import sysconfig

    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    for path in build(extra=tuple(sys.argv[1:])):
        print(path)
