"""``ovit-deploy expand``: model.onnx out of what ``export --compress`` wrote."""

from pathlib import Path

from ovit_deploy.cli import render
from ovit_deploy.errors import ExportError


def expand(file: Path, /, *, output: Path | None = None) -> None:
    """Write the ONNX file that is in a container of export --compress, bit by bit as it was.

    Example: ovit-deploy expand runs/first/deployment/model.onnx.packed

    Args:
        file: The container.
        output: The file to write; by default its name without .packed, beside it.
    """
    from ovit_deploy.export.packed import SUFFIX, unpack_file

    if not file.is_file():
        raise ExportError(f"{file}: no such file", "ovit-deploy export --compress writes one")
    if output is None and file.suffix != SUFFIX:
        raise ExportError(f"{file}: not called *{SUFFIX}, so what shall the ONNX file be called?", "give --output")
    target = output.expanduser() if output else file.with_suffix("")
    unpack_file(file, target)
    render.line(f"wrote {target}")
    render.next_command(f"ovit-deploy bench --model {target}")
