"""PyTorch on the CPU: the timm model itself, eager or compiled.

It runs the checkpoint and not the ONNX file, which torch cannot read: the same weights in the network that they
were trained in, so what it is compared with went through the exporter and it did not. It lives in our own
environment and alone of all engines imports torch and the models.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
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

    def profile(
        self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any], count: int
    ) -> list[dict[str, Any]]:
        """The modules without children, timed by hooks; what runs between them (attention, residuals) is one more."""
        if options["compile"]:
            raise EngineError("a compiled network has no layers to time", "--engine pytorch times them eager")
        clock = ModuleClock(self.network)
        for _ in range(count):
            clock.time(lambda: self.run(images))
        clock.detach()
        return [{**layer, "kernel": "eager", "precision": str(self.dtype)[6:]} for layer in clock.layers(count)]

    def describe(self) -> dict[str, Any]:
        """Version, instruction sets, precision, and whether it is compiled."""
        return {
            "version": self.torch.__version__,
            "instructions": self.torch.backends.cpu.get_cpu_capability(),
            "threads": self.torch.get_num_threads(),
            "precisions": {str(self.dtype).replace("torch.", ""): len(list(self.network.parameters()))},
            "compiled": self.options["compile"],
        }


class ModuleClock:
    """Times the modules without children of a network on the CPU, by hooks; names are those of their weights."""

    def __init__(self, network: Any) -> None:
        self.ms: defaultdict[str, float] = defaultdict(float)
        self.types: dict[str, str] = {}
        self.hooks: list[Any] = []
        for name, module in network.named_modules():
            if not list(module.children()):
                self.types[name] = type(module).__name__
                self.hooks.append(module.register_forward_pre_hook(lambda *_: self._start()))
                self.hooks.append(module.register_forward_hook(lambda *_, name=name: self._stop(name)))

    def time(self, forward: Callable[[], Any]) -> None:
        """Run once; what no module took is ``between modules``."""
        start, before = time.perf_counter(), sum(self.ms.values())
        forward()
        in_modules = sum(self.ms.values()) - before
        self.ms["between modules"] += 1000 * (time.perf_counter() - start) - in_modules

    def detach(self) -> None:
        """Leave the network as it was."""
        for hook in self.hooks:
            hook.remove()

    def layers(self, count: int) -> list[dict[str, Any]]:
        """Mean times of ``count`` runs."""
        kinds = {**self.types, "between modules": "rest"}
        return [
            {"names": [f"{name}.weight"], "type": kind, "ms": self.ms[name] / count}
            for name, kind in kinds.items()
            if self.ms[name]
        ]

    def _start(self) -> None:
        self.started = time.perf_counter()

    def _stop(self, name: str) -> None:
        self.ms[name] += 1000 * (time.perf_counter() - self.started)
