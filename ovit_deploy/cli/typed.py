"""The command as it was typed, for results that say how to have them again."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path


def command_line(arguments: Sequence[str] | None = None) -> str:
    """The command as typed, what lies outside of the present folder by its name only."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["ovit-deploy", *map(_without_folder, arguments)])


def _without_folder(argument: str) -> str:
    """``--data=/home/me/x.npz`` as ``--data=x.npz``; what is no such path stays."""
    option, equals, value = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{Path(value).name}" if value.startswith(("/", "~", "..")) else argument
