"""ONNX Runtime on the CPU: dense kernels, the baseline of every comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovit_deploy.errors import EngineError


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
        settings = self.runtime.SessionOptions()
        settings.intra_op_num_threads = threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        self.session = self.runtime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """The first output of the graph."""
        return np.asarray(self.session.run([self.output], {self.input: images})[0])

    def describe(self) -> dict[str, Any]:
        """Version and execution providers."""
        return {"version": self.runtime.__version__, "providers": self.session.get_providers()}
