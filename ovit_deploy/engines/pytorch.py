"""PyTorch on the CPU: the timm model itself, eager or compiled.

It runs the checkpoint and not the ONNX file, which torch cannot read: the same weights in the network that they
were trained in, so what it is compared with went through the exporter and it did not. It lives in our own
environment and alone of all engines imports torch and the models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ovit_deploy.errors import EngineError


class Engine:
    """A network in inference mode."""

    def start(self) -> None:
        """Import torch and what builds models."""
        try:
            import timm  # noqa: F401  its import is part of a cold start
            import torch
        except ImportError as error:
            raise EngineError(f"pytorch cannot be imported: {error}", "pip install torch timm") from None
        self.torch = torch

    def load(self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any]) -> None:
        """Build the network and, if asked for, compile it for the shape of ``images``."""
        from ovit_deploy import models

        self.torch.set_num_threads(threads)
        self.options = options
        network = models.build(models.choose(None, checkpoint=Path(path), pretrained=False))
        self.dtype = {"f32": self.torch.float32, "bf16": self.torch.bfloat16}[str(options["precision"])]
        self.network: Any = network.to(self.dtype)
        if options["compile"]:
            self.network = self.torch.compile(self.network)
            self.run(images)  # compiles

    def run(self, images: np.ndarray) -> np.ndarray:
        """The logits, as float32."""
        with self.torch.inference_mode():
            return self.network(self.torch.from_numpy(images).to(self.dtype)).float().numpy()

    def describe(self) -> dict[str, Any]:
        """Version, instruction sets, precision, and whether it is compiled."""
        return {
            "version": self.torch.__version__,
            "instructions": self.torch.backends.cpu.get_cpu_capability(),
            "threads": self.torch.get_num_threads(),
            "precisions": {str(self.dtype).replace("torch.", ""): len(list(self.network.parameters()))},
            "compiled": self.options["compile"],
        }
