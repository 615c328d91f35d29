"""What ran, layer by layer, as each runtime's profiler tells it, and what pruning could buy at most.

Amdahl's law (AFIPS 1967): where a share f of the time goes to the layers that are pruned, skipping zeros there makes
the whole at most 1 / (1 - f) times as fast, however sparse they are.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from ovit_deploy.bench import dense_twin
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.errors import EngineError

RUNS = 20
PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "Conv")
PASSED = ("DequantizeLinear", "QuantizeLinear", "Transpose", "Cast", "Identity")


@dataclass(frozen=True)
class Evidence:
    """Layers with their times, and the split of Amdahl's law.

    Args:
        layers: as ``engines.base.Engine.profile`` gives them, each with ``pruned``.
        pruned_ms: ms of the layers that hold pruned weights, with what the runtime fused into them.
        rest_ms: ms of all others.
        kernels: how many of the layers with pruned weights ran in which precision.
        of_peak: by kernel, the share of the processor's arithmetic peak that all such layers reach, pruned or
            not; where the engine tells it.
        error: why there is none of it.
    """

    layers: list[dict[str, Any]] = field(default_factory=list)
    pruned_ms: float = 0.0
    rest_ms: float = 0.0
    kernels: dict[str, int] = field(default_factory=dict)
    of_peak: dict[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def share(self) -> float:
        """The part of the time that goes to pruned layers."""
        total = self.pruned_ms + self.rest_ms
        return self.pruned_ms / total if total else 0.0

    @property
    def ceiling(self) -> float:
        """How many times as fast the model would be if these layers cost nothing."""
        return 1 / (1 - self.share) if self.share < 1 else float("inf")


def collect(process: EngineProcess, pruned: frozenset[str]) -> Evidence:
    """Profile the model that ``process`` has loaded; a runtime that cannot costs the evidence, not the row."""
    try:
        return split(process.profile(RUNS), pruned)
    except EngineError as error:
        return Evidence(error=error.message)


def split(layers: Sequence[Mapping[str, Any]], pruned: frozenset[str]) -> Evidence:
    """Layers by whether one of their names is among ``pruned``."""
    marked = [{**layer, "pruned": not pruned.isdisjoint(layer["names"])} for layer in layers]
    ms = {kind: sum(layer["ms"] for layer in marked if layer["pruned"] is kind) for kind in (True, False)}
    kernels = Counter(str(layer["precision"]) for layer in marked if layer["pruned"] and layer["precision"] != "none")
    return Evidence(marked, ms[True], ms[False], dict(kernels), _of_peak(marked))


def _of_peak(layers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean share of the peak, weighted by time."""
    ms, at_peak = Counter[str](), Counter[str]()
    for layer in layers:
        if "of_peak" in layer:
            kind = " ".join(part for part in (layer["type"], layer["precision"]) if part != "MatMul")
            ms[kind] += layer["ms"]
            at_peak[kind] += layer["ms"] * layer["of_peak"]
    return {kind: at_peak[kind] / ms[kind] for kind in ms if ms[kind]}


def pruned_names(models: Sequence[onnx.ModelProto]) -> frozenset[str]:
    """All names under which a runtime may tell of a pruned layer: its weight, its product and the bias added to it.

    Args:
        models: variants of one graph. The pruned weights are those that are sparse in one of them, or, where none is,
            all two-dimensional ones but the head's, which would be pruned.
    """
    sparse = {tensor.name for model in models for tensor in dense_twin.sparse_weights(model)}
    graph = models[0].graph
    outputs = {value.name for value in graph.output}
    names = set()
    for number, node in enumerate(graph.node):
        weight = _weight(node, graph) if node.op_type in PRODUCTS else None
        if weight is None:
            continue
        followers = list(_followers(node, graph))
        produced = {name for one in (node, *followers) for name in one.output}
        if weight in sparse or (not sparse and not produced & outputs):
            unnamed = f"{node.op_type}_{number}"  # what ONNX Runtime calls a node without a name
            names |= {weight, *produced, node.name or unnamed, *(one.name for one in followers)}
    return frozenset(names - {""})


def _weight(node: onnx.NodeProto, graph: onnx.GraphProto) -> str | None:
    """The name of the matrix that a product multiplies with, past what only changes its form; None if it has none."""
    makers = {name: one for one in graph.node for name in one.output}
    matrices = {tensor.name for tensor in graph.initializer if len(tensor.dims) >= 2}
    for name in node.input:
        while name in makers and makers[name].op_type in PASSED:
            name = makers[name].input[0]
        if name in matrices:
            return name
    return None


def _followers(node: onnx.NodeProto, graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The additions and scalings by constants that follow a product, which runtimes fuse into it."""
    constants = {tensor.name for tensor in graph.initializer}
    while True:
        users = [one for one in graph.node if node.output[0] in one.input]
        if len(users) != 1 or not _by_constant(users[0], constants):
            return
        node = users[0]
        yield node


def _by_constant(node: onnx.NodeProto, constants: set[str]) -> bool:
    if node.op_type == "Cast":
        return True
    return node.op_type in ("Add", "Mul") and any(name in constants for name in node.input)
