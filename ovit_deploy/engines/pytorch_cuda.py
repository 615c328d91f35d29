"""PyTorch on an NVIDIA GPU: dense, or 2:4 by cuSPARSELt in each layer where that is faster.

``semi_structured=true`` turns a linear layer whose weights are 2:4 into a compressed one
(torch.sparse.to_sparse_semi_structured), times both on the activations that the first batch brings to it, and keeps the
faster; so the model is not slower than the dense one by more than the clock's error. What is timed goes from numpy to
numpy. The choice of layers is tested without a GPU; nothing here has been run on one.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ovit_deploy.engines import cuda, pytorch
from ovit_deploy.errors import EngineError

GROUP, KEPT = 4, 2
MULTIPLE = 32  # of rows and columns; cuSPARSELt takes 16 in fp16 and bf16, CUTLASS 32 rows
TIMED_RUNS = 50


class Engine(pytorch.Engine):
    """A network in inference mode on the first GPU."""

    def start(self) -> None:
        """Ask the driver for a GPU, then import torch."""
        cuda.require("pytorch_cuda")
        super().start()
        if not self.torch.cuda.is_available():
            raise EngineError("this PyTorch cannot use the GPU", "install a build of torch for the driver's CUDA")

    def load(self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any]) -> None:
        """Build the network on the GPU, and choose the form of each layer if asked to."""
        from ovit_deploy import models

        torch = self.torch
        torch.set_num_threads(threads)
        self.options = options
        self.dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[str(options["precision"])]
        network = models.build(models.choose(None, checkpoint=Path(path), pretrained=False))
        self.network = network.to("cuda", self.dtype)
        self.layers: list[dict[str, Any]] = []
        if options["semi_structured"]:
            if self.dtype == torch.float32:
                raise EngineError("2:4 kernels have no float32", "add precision=f16 or precision=bf16")
            if not torch.backends.cusparselt.is_available():
                raise EngineError("this PyTorch has no cuSPARSELt", "install a build of torch with CUDA 12 or newer")
            self.layers = self._choose(images)
        if options["compile"]:
            self.network = torch.compile(self.network)
            self.run(images)  # compiles

    def run(self, images: np.ndarray) -> np.ndarray:
        """The logits, as float32; the copy back waits for the GPU."""
        with self.torch.inference_mode():
            return self.network(self._on_gpu(images)).float().cpu().numpy()

    def profile(
        self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any], count: int
    ) -> list[dict[str, Any]]:
        """Nothing: hooks on modules time when work is given to the GPU, not when it is done."""
        raise EngineError("its layers are not profiled", "the JSON has the time of every layer in both forms")

    def describe(self) -> dict[str, Any]:
        """Version, GPU, precision, and for each 2:4 layer both times and the form that was kept."""
        forms = [layer["form"] for layer in self.layers]
        return {
            "version": self.torch.__version__,
            "gpu": self.torch.cuda.get_device_name(),
            "precisions": {str(self.dtype)[6:]: len(list(self.network.parameters()))},
            "compiled": self.options["compile"],
            "sparsity": {"found": len(forms), "chose": forms.count("sparse")},
            "layers": self.layers,
        }

    def _on_gpu(self, images: np.ndarray) -> Any:
        return self.torch.from_numpy(images).to("cuda", self.dtype)

    def _choose(self, images: np.ndarray) -> list[dict[str, Any]]:
        """Every 2:4 layer in its faster form; what both took."""
        found = candidates(self.network)
        activations = self._activations(found, images)
        return [self._faster(name, layer, activations[name]) for name, layer in found.items()]

    def _activations(self, layers: dict[str, Any], images: np.ndarray) -> dict[str, Any]:
        """What the first batch brings to each layer."""
        seen: dict[str, Any] = {}
        hooks = [
            layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].detach()}))
            for name, layer in layers.items()
        ]
        self.run(images)
        for hook in hooks:
            hook.remove()
        return seen

    def _faster(self, name: str, layer: Any, x_BTI: Any) -> dict[str, Any]:
        """One layer in both forms, the faster one left in place."""
        dense = layer.weight
        with self.torch.inference_mode():
            dense_ms = self._time_ms(layer, x_BTI)
            compressed = self.torch.sparse.to_sparse_semi_structured(dense.detach())
            layer.weight = self.torch.nn.Parameter(compressed, requires_grad=False)
            sparse_ms = self._time_ms(layer, x_BTI)
            if sparse_ms >= dense_ms:
                layer.weight = dense
        form = "sparse" if sparse_ms < dense_ms else "dense"
        return {"layer": name, "form": form, "dense_ms": dense_ms, "sparse_ms": sparse_ms}

    def _time_ms(self, layer: Any, x_BTI: Any) -> float:
        """The median of some runs on the GPU's clock, after as many that are not counted."""
        times = []
        for _ in range(2 * TIMED_RUNS):
            start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            layer(x_BTI)
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return median(times[TIMED_RUNS:])


def candidates(network: Any) -> dict[str, Any]:
    """The linear layers whose weights are 2:4 along their inputs and of a size that the kernels take, by name."""
    import torch

    linear = {name: layer for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)}
    return {name: layer for name, layer in linear.items() if is_2of4(layer.weight)}


def is_2of4(weight_OI: Any) -> bool:
    """Whether each aligned group of four inputs has two zeros at least, and the size fits."""
    if any(size % MULTIPLE for size in weight_OI.shape):
        return False
    kept = (weight_OI != 0).reshape(len(weight_OI), -1, GROUP).sum(-1)
    return bool((kept <= KEPT).all())
