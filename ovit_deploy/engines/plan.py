"""An ONNX file as a plan of TensorRT, and what proves that sparse kernels are in it.

Networks are strongly typed: a layer computes in the types that the file has, and TensorRT chooses kernels among those.
With SPARSE_WEIGHTS it may choose kernels that skip the zeros of 2:4 weights, where they are faster; its log then counts
the layers that could (found) and those that do (chose), and the inspector names each kernel. The flag alone proves
nothing. No plan is kept: a plan is code, and only one that was built in this process is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ovit_deploy.errors import EngineError

WORKSPACE_BYTES = 4 << 30
SPARSE_KERNEL = re.compile(r"xmma_sparse|sparse_gemm|sparse_conv|spgemm|sptensor", re.IGNORECASE)
TOLD = {
    "found": (r"\(Sparsity\) Found (\d+) layer", r"Layers eligible for sparse math: *(.*)"),
    "chose": (r"\(Sparsity\) Chose (\d+) layer", r"picked sparse implementation for layers: *(.*)"),
}
DATA_TYPES = re.compile(r"FP32|FP16|BF16|INT8|FP8|INT4|Float|Half|BFloat16|Int8", re.IGNORECASE)


def build(trt: Any, log: Any, path: str, shape: Sequence[int], *, sparse: bool, tf32: bool) -> Any:
    """The serialized plan of the ONNX file at ``path``.

    Args:
        trt: the module, TensorRT's own or that for RTX.
        log: a logger of that module; see `logger`.
        path: the file.
        shape: of the images, [batch, C, H, W].
        sparse: whether kernels for 2:4 weights may be chosen.
        tf32: whether float32 products may be rounded to TF32, the only float32 that has sparse kernels.

    Raises:
        EngineError: the file is not ONNX, or has something that TensorRT does not run; says which node.
    """
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(path):
        raise EngineError(f"TensorRT does not read the file: {_reasons(parser)}", "export with another --profile")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    for flag, wanted in ((trt.BuilderFlag.SPARSE_WEIGHTS, sparse), (trt.BuilderFlag.TF32, tf32)):
        (config.set_flag if wanted else config.clear_flag)(flag)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *[tuple(shape)] * 3)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT builds no plan: {log.last_error}")
    return plan


def logger(trt: Any) -> Any:
    """A logger of the module ``trt`` that keeps its ``lines``, and the last of its errors."""

    class Kept(trt.ILogger):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []
            self.last_error = "it says not why"

        def log(self, severity: Any, message: str) -> None:
            self.lines.append(message)
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = message

    return Kept()


def _reasons(parser: Any) -> str:
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return "; ".join(f"{error.node_name() or 'the file'}: {error.desc()}" for error in errors) or "it says not why"


def sparsity_told(lines: Iterable[str]) -> dict[str, int | None]:
    """Layers that could run sparse (``found``) and that do (``chose``), by the builder's log; None where it is silent.

    Since TensorRT 10 the log has their numbers, before it had their names.
    """
    text = list(lines)
    return {what: _number(patterns, text) for what, patterns in TOLD.items()}


def _number(patterns: tuple[str, str], lines: list[str]) -> int | None:
    counted, named = patterns
    for line in reversed(lines):
        if match := re.search(counted, line):
            return int(match[1])
        if match := re.search(named, line):
            return len([name for name in match[1].split(",") if name.strip()])
    return None


def layers(inspected: str) -> list[dict[str, Any]]:
    """The layers of a plan, from the inspector's JSON.

    Each with the ``names`` of ONNX nodes that it stands for, ``layer`` (its own), ``type``, ``kernel`` (the tactic),
    and ``precision``: ``sparse`` where the tactic's name says so, else the type of its output.

    Raises:
        EngineError: the plan holds names only, as one does that was not built with detailed verbosity.
    """
    told = json.loads(inspected)["Layers"]
    if not all(isinstance(layer, dict) for layer in told):
        raise EngineError("the plan tells names of layers only, no kernels")
    return [_layer(layer) for layer in told]


def _layer(told: dict[str, Any]) -> dict[str, Any]:
    kernel = told.get("TacticName") or "none"
    nodes = re.findall(r"\[ONNX Layer: ([^\]]+)\]", str(told.get("Metadata", "")))
    formats = [output.get("Format/Datatype", "") for output in told.get("Outputs", ())]
    types = [match[0] for text in formats if (match := DATA_TYPES.search(text))]
    precision = "sparse" if SPARSE_KERNEL.search(kernel) else types[0] if types else "none"
    named = nodes or re.split(r" \+ |,", told["Name"])
    return {
        "names": named,
        "layer": told["Name"],
        "type": told.get("LayerType", "unknown"),
        "kernel": kernel,
        "precision": precision,
    }
