"""ONNX Runtime: dense kernels on the CPU, the baseline of every comparison; on a GPU where a provider for it is here.

Asked for a provider that it cannot start, ONNX Runtime goes on with the CPU; here that is an error. The providers for
GPUs have been run on none so far.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ovit_deploy.errors import EngineError

INTEGERS = ("int8", "uint8")
PROVIDERS = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
    "tensorrt": ("TensorrtExecutionProvider", {}),
}


class Engine:
    """An ``onnxruntime.InferenceSession`` with all graph optimisations."""

    def start(self) -> None:
        """Import ONNX Runtime."""
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(f"onnxruntime cannot be imported: {error}", "pip install onnxruntime") from None
        self.runtime = onnxruntime

    def load(self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any]) -> None:
        """Build the session; the batch size is the file's own."""
        self.session = self._session(path, self._settings(threads), str(options["provider"]))
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """The first output of the graph."""
        return np.asarray(self.session.run([self.output], {self.input: images})[0])

    def profile(
        self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any], count: int
    ) -> list[dict[str, Any]]:
        """The nodes that ran, after ONNX Runtime's own rewriting of the graph, from its trace."""
        settings = self._settings(threads)
        settings.enable_profiling = True
        with tempfile.TemporaryDirectory() as folder:
            settings.profile_file_prefix = str(Path(folder, "trace"))
            session = self._session(path, settings, str(options["provider"]))
            for _ in range(count):
                session.run([self.output], {self.input: images})
            events = json.loads(Path(session.end_profiling()).read_text())
        return _layers([event for event in events if event.get("cat") == "Node"], count)

    def _settings(self, threads: int) -> Any:
        settings = self.runtime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        return settings

    def _session(self, path: str, settings: Any, provider: str) -> Any:
        name, wanted = PROVIDERS[provider]
        install = "pip install onnxruntime-gpu in place of onnxruntime, with a driver and CUDA libraries that fit"
        if name not in self.runtime.get_available_providers():
            raise EngineError(f"this ONNX Runtime has no {name}", install)
        session = self.runtime.InferenceSession(path, settings, providers=[(name, wanted)])
        if session.get_providers()[0] != name:
            raise EngineError(f"{name} does not start here, and the CPU would run in its place", install)
        return session

    def describe(self) -> dict[str, Any]:
        """Version and execution providers."""
        return {"version": self.runtime.__version__, "providers": self.session.get_providers()}


def _layers(events: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """One entry a node, its time summed over the trace and divided by ``count`` runs."""
    layers: dict[str, dict[str, Any]] = {}
    for event in events:
        name, told = event["name"].replace("_kernel_time", ""), event["args"]
        fresh = {"names": [name.split("/")[0]], "type": told["op_name"], "kernel": told["provider"], "ms": 0.0}
        layer = layers.setdefault(name, {**fresh, "precision": _precision(told["input_type_shape"])})
        layer["ms"] += event["dur"] / 1000 / count
    return list(layers.values())


def _precision(inputs: list[dict[str, Any]]) -> str:
    """The type of the first input, or the integer type if any input has one: products of integers are INT8 kernels."""
    types = [kind for one in inputs for kind in one]
    return next((kind for kind in types if kind in INTEGERS), types[0] if types else "none")
