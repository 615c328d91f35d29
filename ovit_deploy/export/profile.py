"""A profile: the form of ONNX that an engine runs fast, read from ``export/<name>.yaml``."""

import difflib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from ruamel.yaml import YAML, YAMLError

from ovit_deploy import catalog
from ovit_deploy.errors import ExportError, OvitError


class Profile(BaseModel):
    """What the exported graph looks like, and how far its logits may be from PyTorch's.

    Attributes:
        name: of the file it was read from.
        description: one line for tables.
        opset: version of the ONNX operators. PyTorch's exporter writes 18 and later.
        ir_version: version of the file format; old engines refuse new ones.
        batch: ``dynamic``, or the fixed number of images a call.
        attention: ``plain`` (MatMul, Softmax, MatMul), or ``as_is`` (whatever the model uses).
        passes: names from ``ovit_deploy.export.passes.PASSES``, in order.
        tolerance: largest absolute difference of a logit between PyTorch and ONNX Runtime.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    opset: Annotated[int, Field(ge=18, le=23)]
    ir_version: Annotated[int, Field(ge=8, le=12)]
    batch: Literal["dynamic"] | PositiveInt = "dynamic"
    attention: Literal["plain", "as_is"] = "plain"
    passes: tuple[str, ...] = ()
    tolerance: Annotated[float, Field(ge=0)] = 1e-4


def load_profile(name: str | Path) -> Profile:
    """The profile that ``name`` stands for: a path, or the bare name of a shipped one.

    Raises:
        ExportError: there is no such file, or something in it is wrong; says file, line and key.
    """
    try:
        path = catalog.find("export", name)
    except OvitError as error:
        raise ExportError(error.message, error.hint) from None
    fields = _read(path)
    try:
        return Profile(name=path.stem, **fields)
    except ValidationError as error:
        raise _explained(error, path, fields) from None


def _read(path: Path) -> dict:
    """The mapping in a YAML file, with line numbers attached."""
    try:
        fields = YAML().load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{path}: not YAML: {' '.join(str(error).split())}", "compare it with export/deepsparse.yaml"
        ) from None
    if not isinstance(fields, dict) or "name" in fields:
        raise ExportError(f"{path}: not a profile", "write `key: value` lines; the name is the file's")
    return fields


def _explained(error: ValidationError, path: Path, fields: dict) -> ExportError:
    """All problems of one file as one error."""
    problems = [_problem(item["loc"], item["msg"], path, fields) for item in error.errors()]
    return ExportError("\n".join(problems), f"known keys: {', '.join(_keys())}")


def _problem(location: tuple[int | str, ...], message: str, path: Path, fields: dict) -> str:
    """One problem: file, line, key, what is wrong, and the key that was probably meant."""
    key = str(location[0])
    if key not in fields:
        return f"{path}: {key}: {message}"
    where = f"{path}:{fields.lc.key(key)[0] + 1}: {key}"  # pyrefly: ignore
    if key in _keys():
        return f"{where}: {message} (found {fields[key]!r})"
    near = difflib.get_close_matches(key, _keys(), n=1)
    return f"{where}: unknown key{f', did you mean {near[0]}?' if near else ''}"


def _keys() -> list[str]:
    """The keys that a profile file may have."""
    return [key for key in Profile.model_fields if key != "name"]
