"""OpenVINO on the CPU: dense kernels in float32 or bfloat16; its sparse-weights switch saves memory traffic.

Where the CPU has bfloat16 instructions OpenVINO uses them unless told otherwise, so the precision is always
set. What then ran, layer by layer, is read from the runtime model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from ovit_deploy.errors import EngineError

NO_WORK = ("Input", "Output", "Const")


class Engine:
    """An OpenVINO infer request of a model with static shapes."""

    def start(self) -> None:
        """Import OpenVINO."""
        try:
            import openvino
        except ImportError as error:
            hint = "pip install 'ovit-deploy[openvino]'"
            raise EngineError(f"openvino cannot be imported: {error}", hint) from None
        self.openvino = openvino

    def load(self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any]) -> None:
        """Compile the model for the shape of ``images``, with the latency hint and one stream."""
        self.compiled = self._compile(path, images, threads, options)
        self.request = self.compiled.create_infer_request()

    def _compile(self, path: str, images: np.ndarray, threads: int, options: dict[str, Any], **more: Any) -> Any:
        core = self.openvino.Core()
        model = core.read_model(path)
        model.reshape({model.input(0): list(images.shape)})
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": options["precision"],
            "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": options["sparse_weights"],
            **more,
        }
        supported = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if options["precision"] == "bf16" and "BF16" not in supported:
            raise EngineError("this CPU has no bfloat16 instructions", "leave out precision=bf16")
        return core.compile_model(model, "CPU", settings)

    def run(self, images: np.ndarray) -> np.ndarray:
        """The first output of the graph."""
        return np.array(self.request.infer([images])[0])

    def profile(
        self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any], count: int
    ) -> list[dict[str, Any]]:
        """The nodes that OpenVINO executed, with its performance counters; what it fused bears all the names."""
        compiled = self._compile(path, images, threads, options, PERF_COUNT=True)
        request = compiled.create_infer_request()
        ms: defaultdict[str, float] = defaultdict(float)
        for _ in range(count):
            request.infer([images])
            for one in request.get_profiling_info():
                ms[one.node_name] += one.real_time.total_seconds() * 1000 / count
        nodes = [(node.get_friendly_name(), _layer(node)) for node in compiled.get_runtime_model().get_ordered_ops()]
        return [
            {"names": told.pop("layer").split(","), **told, "ms": ms[name]}
            for name, told in nodes
            if told["type"] not in NO_WORK and ms[name]
        ]

    def describe(self) -> dict[str, Any]:
        """Version, settings as OpenVINO took them, and the precision and kernel of every layer that does work."""
        layers = [_layer(node) for node in self.compiled.get_runtime_model().get_ordered_ops()]
        working = [layer for layer in layers if layer["type"] not in NO_WORK]
        return {
            "version": self.openvino.__version__,
            "threads": self.compiled.get_property("INFERENCE_NUM_THREADS"),
            "sparse_weights": self.compiled.get_property("CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE"),
            "precisions": dict(Counter(layer["precision"] for layer in working)),
            "layers": working,
        }


def _layer(node: Any) -> dict[str, str]:
    """A node of the runtime model: what it fuses, its type, the precision and the kernel that it runs with."""
    told = node.get_rt_info()
    keys = {"layer": "originalLayersNames", "type": "layerType", "precision": "runtimePrecision"}
    found = {name: told[key].astype(str) for name, key in keys.items()}
    return {**found, "kernel": told["primitiveType"].astype(str)}
