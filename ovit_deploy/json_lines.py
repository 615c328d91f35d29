"""Files of JSON lines that survive a crash: a line is on disk at once, half a line at the end is cut off."""

import json
import os
from pathlib import Path
from typing import Any


def append(path: Path, value: dict[str, Any]) -> None:
    """Add a line, on disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")
        file.flush()
        os.fsync(file.fileno())


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that end, none if it is missing; what follows the last of them is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    length = content.rfind(b"\n") + 1
    if length < len(content):
        with path.open("r+b") as file:
            file.truncate(length)
    return content[:length].decode("utf-8", errors="replace").splitlines()
