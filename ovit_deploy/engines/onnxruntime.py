"""ONNX Runtime on the CPU: dense kernels, the baseline of every comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovit_deploy.errors import EngineError


class Engine:
    """An ``onnxruntime.InferenceSession`` with all graph optimisations."""

    def load(self, path: str, *, batch_size: int, threads: int) -> None:
        """Build the session; the batch size is the file's own."""
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(f"onnxruntime cannot be imported: {error}", "pip install onnxruntime") from None
        self.version = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """The first output of the graph."""
        return np.asarray(self.session.run([self.output], {self.input: images})[0])

    def describe(self) -> dict[str, Any]:
        """Version and execution providers."""
        return {"version": self.version, "providers": self.session.get_providers()}
