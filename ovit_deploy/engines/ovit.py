"""The sparse engine of this package as an engine to be measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovit_deploy.errors import EngineError


class Engine:
    """Sparse weights times dense activations: ovit_deploy/engines/sparse/."""

    def start(self) -> None:
        """Load the compiled half."""
        from ovit_deploy.engines import sparse
        from ovit_deploy.engines.sparse.library import best_level

        best_level()
        self.runtime = sparse

    def load(self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any]) -> None:
        """Read the graph, pack the weights, choose forms by timing them."""
        if not path.endswith(".onnx"):
            raise EngineError(f"{path}: not an ONNX file", "ovit-deploy export --onnx")
        self.engine = self.runtime.Engine(path, threads=threads)

    def run(self, images: np.ndarray) -> np.ndarray:
        """The logits."""
        return self.engine.run(images)

    def profile(
        self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any], count: int
    ) -> list[dict[str, Any]]:
        """The layers as the compiled half times them, with the share of the processor's peak that products reach."""
        return self.engine.profile(images, count)

    def describe(self) -> dict[str, Any]:
        """Version, instructions, and the form of every layer."""
        from importlib.metadata import version

        return {"version": version("ovit-deploy"), **self.engine.describe()}
