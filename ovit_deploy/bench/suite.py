"""What a benchmark is: the models of ``bench/*.yaml`` and of the command line's flags."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from ovit_deploy import catalog
from ovit_deploy.bench.scenario import Scenario
from ovit_deploy.engines.selection import Selection
from ovit_deploy.errors import OvitError
from ovit_deploy.recipe import yaml


def known_engine(name: str) -> str:
    """``name``, if there is such an engine with such options; written in one way only.

    Raises:
        ValueError: there is none; says which there are.
    """
    return str(Selection.parse(name))


def not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """``values``, if there are any.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("give at least one")
    return values


T = TypeVar("T")
EngineName = Annotated[str, AfterValidator(known_engine)]
Sparsity = Annotated[float, Field(ge=0, lt=1)]
Pattern = Literal["unstructured", "block4"]
Precision = Literal["float32", "int8"]
Several = Annotated[tuple[T, ...], AfterValidator(not_empty)]


class Declaration(BaseModel):
    """Unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LatencySuite(Declaration):
    """Engines against models: every model at every batch size and number of threads, all engines in turns.

    Attributes:
        engines: names of engines, with options where there are any: ``openvino:precision=bf16``.
        dense_only: those of them that run no file with zeros: they would take the same time, and cost it.
        models: paths of ONNX files, or names of timm models (random weights); none for the newest export.
        sparsities: fractions of zeros to give a timm model.
        patterns: where those zeros are: anywhere, or in groups of four inputs.
        precisions: of a timm model; int8 rounds layers and the products of attention, with ranges from random images.
        beside_float: whether a timm model in int8 has the dense one in float32 measured beside it, in the same turns.
        batch_sizes: images a run.
        threads: of each engine. One by default: timings on two and more are less steady.
        duration_s: timed seconds for every model on every engine; not used when ``iterations`` is set.
        iterations: timed runs instead.
        processes: fresh processes for every model on every engine, which share the time. From six on, the verdict rests
            on them alone.
        scenario: how runs follow each other, by MLPerf's names.
        rate: queries a second that arrive (``server``); by default 70 % of what the slowest contestant can do.
        streams: processes that run at the same time (``offline``); by default as many as fill the cores.
        pin: whether engines are bound to the idlest cores; else the system moves them about.
        evidence: whether every engine profiles its layers after it was timed.
        top1: how many test images, drawn by chance, every engine answers after it was timed, or ``all``.
        data: these images, as other commands take them; by default those of the run that an export belongs to.
        seed: of random weights, random images and the order of measuring.
        timeout_s: how long one step of an engine may take, building a model included.
    """

    kind: Literal["latency"] = "latency"
    engines: Several[EngineName] = ("onnxruntime",)
    dense_only: tuple[EngineName, ...] = ()
    models: tuple[str, ...] = ()
    sparsities: Several[Sparsity] = (0.75,)
    patterns: Several[Pattern] = ("unstructured",)
    precisions: Several[Precision] = ("float32",)
    beside_float: bool = False
    batch_sizes: Several[PositiveInt] = (1,)
    threads: Several[PositiveInt] = (1,)
    duration_s: PositiveFloat = 10.0
    iterations: PositiveInt | None = None
    seed: int = Field(0, ge=0)
    timeout_s: PositiveFloat = 600.0
    processes: PositiveInt = 1
    scenario: Scenario = "single_stream"
    rate: PositiveFloat | None = None
    streams: PositiveInt | None = None
    pin: bool = True
    evidence: bool = False
    top1: PositiveInt | Literal["all"] | None = None
    data: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.iterations is not None and self.iterations < self.processes:
            raise ValueError(f"{self.iterations} iterations are too few for {self.processes} processes")
        if self.rate is not None and self.scenario != "server":
            raise ValueError("rate is for scenario: server")
        if self.streams is not None and self.scenario != "offline":
            raise ValueError("streams is for scenario: offline")
        if self.data is not None and self.top1 is None:
            raise ValueError("data is for top1: how many of its test images, or all")
        return self


class PruningStep(Declaration):
    """A pruning step on a timm model with random weights and images.

    Attributes:
        model: timm's name.
        model_kwargs: what timm is told besides.
        layers: ``all`` that a model would be pruned in, or a pattern for names of weights, matched from the start.
        num_grads: images.
        damping: added to the diagonal of the Fisher matrices.
        sparsity: fraction of zeros in the layers.
        batch_size: images that go through the model together.
        memory_gb: budget, in 1e9 bytes.
        spill: whether what the budget does not hold goes to disk, instead of being taken twice.
        threads: of torch; by default as many as there are cores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str
    model_kwargs: dict[str, Any] = {}
    layers: str = "all"
    num_grads: PositiveInt = 256
    damping: PositiveFloat = 1e-6
    sparsity: Sparsity = 0.75
    batch_size: PositiveInt = 16
    memory_gb: PositiveFloat = 2.0
    spill: bool = False
    threads: PositiveInt | None = None


class PrunerSuite(Declaration):
    """The pruning kernel against its plain form, on the same random Fisher blocks; then the whole pruning step.

    Attributes:
        blocks: number of Fisher blocks.
        block_size: weights in a block.
        repeats: timed runs of the kernel.
        plain_repeats: timed runs of the batched torch form, which is slow.
        step: the whole step, if that is wanted; once in each form.
        seed: of the blocks, and of the model and the images.
    """

    kind: Literal["pruner"]
    blocks: PositiveInt
    block_size: PositiveInt
    repeats: PositiveInt = 5
    plain_repeats: PositiveInt = 1
    step: PruningStep | None = None
    seed: int = Field(0, ge=0)


class PrunerMemorySuite(Declaration):
    """Peak memory of the pruning step at several budgets.

    Attributes:
        step: what is pruned; its own budget is not used.
        block_size: weights in a block.
        budgets_gb: budgets, in 1e9 bytes.
        seed: of the model and the images.
    """

    kind: Literal["pruner_memory"]
    step: PruningStep
    block_size: PositiveInt = 192
    budgets_gb: Several[PositiveFloat]
    seed: int = Field(0, ge=0)


Suite = LatencySuite | PrunerSuite | PrunerMemorySuite
KINDS: dict[Any, type[Suite]] = {
    "latency": LatencySuite,
    "pruner": PrunerSuite,
    "pruner_memory": PrunerMemorySuite,
}


def load_suite(name: str | Path) -> Suite:
    """The suite that ``name`` stands for: a path, or the bare name of a shipped one.

    Raises:
        OvitError: no such file, or something in it is wrong; every problem as ``file:line:column: message``.
    """
    path = catalog.find("bench", name)
    document = yaml.parse(path.read_text(encoding="utf-8"))
    kind = document.data.get("kind") if isinstance(document.data, dict) else None
    problems = [(problem.place, problem.message) for problem in document.problems]
    if not problems and kind not in KINDS:
        problems = [(document.place(("kind",)), f"kind must be {' or '.join(KINDS)}, not {kind!r}")]
    if not problems:
        try:
            return KINDS[kind].model_validate(document.data)
        except ValidationError as error:
            problems = [(document.place(item["loc"]), _say(item, KINDS[kind])) for item in error.errors()]
    lines = [f"{path}:{line}:{column}: {message}" for (line, column), message in sorted(problems)]
    raise OvitError("\n".join(lines), "mend the suite; bench/README.md lists its keys")


def override(suite: Suite, values: Mapping[str, Any]) -> Suite:
    """``suite`` with some of its values replaced.

    Raises:
        OvitError: the suite has no such key, or a value is out of range.
    """
    kind = KINDS[suite.kind]
    try:
        return kind.model_validate({**suite.model_dump(), **values})
    except ValidationError as error:
        problems = "\n".join(_say(item, kind) for item in error.errors())
        raise OvitError(problems, "ovit-deploy bench --help") from None


def _say(item: Any, suite: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, suite.model_fields, n=1)
        return f"{suite.__name__} has no key {key}{f', did you mean {near[0]}?' if near else ''}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{key}: {message}, not {item['input']!r}" if key else message
