"""DeepSparse 1.8.0: kernels for unstructured sparsity on x86-64 CPUs.

Its last engine release. The binary misreads the arrays of numpy 2 and then returns garbage without a word, so
start() refuses to go on with one. It bundles ONNX Runtime 1.15 (IR version 9, opset 19) and may abort the
whole process on a graph it dislikes. Building an engine takes 10 to 45 s for a ViT-Small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovit_deploy.errors import EngineError

NO_PRODUCT = ("elementwise", "shuffle")


class Engine:
    """A ``deepsparse.Engine`` that answers one request at a time."""

    def start(self) -> None:
        """Import DeepSparse, with numpy 1 only."""
        require_old_numpy(np.__version__)
        try:
            import deepsparse  # pyrefly: ignore  it lives in an environment of its own
        except ImportError as error:
            raise EngineError(f"deepsparse cannot be imported: {error}") from None
        self.runtime = deepsparse

    def load(self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any]) -> None:
        """Compile the model for this batch size and number of cores."""
        self.engine = self.runtime.Engine(path, batch_size=len(images), num_cores=threads)

    def run(self, images: np.ndarray) -> np.ndarray:
        """The first output of the graph."""
        return self.engine.run([images])[0]

    def profile(
        self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any], count: int
    ) -> list[dict[str, Any]]:
        """The layers of DeepSparse's debug analysis; ``kernel_sparsity`` is the zeros that a kernel skips."""
        analysis = self.runtime.engine.model_debug_analysis(
            path, [images], batch_size=len(images), num_cores=threads, num_iterations=count, num_warmup_iterations=1
        )
        return [_layer(told) for told in analysis["layer_info"]]

    def describe(self) -> dict[str, Any]:
        """Version, instruction sets, and how much of the graph its fast runtime takes."""
        return {
            "version": self.runtime.__version__,
            "instructions": self.engine.cpu_avx_type,
            "vnni": bool(self.engine.cpu_vnni),
            "supported_operators": float(self.engine.fraction_of_supported_ops),
            "numpy": np.__version__,
        }


def _layer(told: dict[str, Any]) -> dict[str, Any]:
    """A layer as the analysis tells it; kernels that skip zeros are called ``ks_``."""
    plain = told["name"].startswith(NO_PRODUCT)
    return {
        "names": told["canonical_name"].split(","),
        "type": told["name"].rstrip("_0123456789"),
        "kernel": told["name"],
        "precision": "none" if plain else "sparse" if told["name"].startswith("ks_") else "dense",
        "ms": told["average_run_time_in_ms"],
        "kernel_sparsity": told["kernel_sparsity"],
    }


def require_old_numpy(version: str) -> None:
    """Refuse numpy 2: with it DeepSparse returns garbage silently.

    Raises:
        EngineError: numpy is 2.0 or newer.
    """
    if int(version.split(".")[0]) >= 2:
        raise EngineError(
            f"DeepSparse 1.8.0 computes garbage with numpy {version}",
            "delete its environment; the next bench makes it anew with numpy 1",
        )
