"""A profile: the form of ONNX that an engine runs fast, read from ``export/<name>.yaml``."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from ovit_deploy import catalog
from ovit_deploy.errors import ExportError, OvitError
from ovit_deploy.export.passes import find_pass
from ovit_deploy.recipe import yaml
from ovit_deploy.recipe.quantization import Quantization


def _known(name: str) -> str:
    try:
        find_pass(name)
    except ExportError as error:
        raise ValueError(f"{error.message}, {error.hint}") from None
    return name


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
        precision: ``float32``, or ``int8`` for a quantized model.
        tolerance: largest difference of a logit between PyTorch and ONNX Runtime, in float32; a fraction of the largest
            logit where that is above 1.
        quantization: how ``--quantize`` rounds a float model for this profile: the keys of a recipe's
            ``!QuantizationModifier`` that say what and not when.
        min_agreement: fraction of images that PyTorch and ONNX Runtime must give the same class to, in int8.
        min_cosine: least cosine of their logits, averaged over images, in int8.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str
    opset: int = Field(ge=18, le=23)
    ir_version: int = Field(ge=8, le=12)
    batch: Literal["dynamic"] | PositiveInt = "dynamic"
    attention: Literal["plain", "as_is"] = "plain"
    passes: tuple[Annotated[str, AfterValidator(_known)], ...] = ()
    precision: Literal["float32", "int8"] = "float32"
    tolerance: float = Field(1e-4, ge=0)
    quantization: Quantization | None = None
    min_agreement: float = Field(0.995, ge=0, le=1)
    min_cosine: float = Field(0.999, ge=-1, le=1)


KEYS = [key for key in Profile.model_fields if key != "name"]


def load_profile(name: str | Path) -> Profile:
    """The profile that ``name`` stands for: a path, or the bare name of a shipped one.

    Raises:
        ExportError: there is no such file, or something in it is wrong: every problem as
            ``file:line:column: message``, with the key or pass that was probably meant.
    """
    try:
        path = catalog.find("export", name)
    except OvitError as error:
        raise ExportError(error.message, error.hint) from None
    try:
        document = yaml.parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ExportError(f"{path}: not UTF-8 text", "a profile is a YAML file, see export/") from None
    problems = [(problem.place, problem.message) for problem in document.problems]
    if not problems and not isinstance(document.data, dict):
        problems = [((1, 1), f"a profile is a mapping with the keys {', '.join(KEYS)}")]
    if not problems and "name" in document.data:
        problems = [(document.place(("name",)), "unknown key name: a profile is called as its file is")]
    if not problems:
        try:
            return Profile(name=path.stem, **document.data)
        except ValidationError as error:
            problems = [(document.place(item["loc"]), _say(item)) for item in error.errors()]
    lines = [f"{path}:{line}:{column}: {message}" for (line, column), message in sorted(problems)]
    raise ExportError("\n".join(lines), "mend the profile; export/README.md lists its keys")


def _say(item: Any) -> str:
    """One problem in words."""
    key = str(item["loc"][0])
    if item["type"] == "missing":
        return f"{key} is missing"
    if item["type"] != "extra_forbidden":
        return f"{key}: {item['msg'].removeprefix('Value error, ')} (found {item['input']!r})"
    near = difflib.get_close_matches(key, KEYS, n=1)
    return f"unknown key {key}, " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(KEYS)}")
