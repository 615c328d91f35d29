"""TensorRT on NVIDIA GPUs: dense kernels, and sparse ones for 2:4 weights where it finds them faster.

What is timed goes from numpy to numpy, so the copies to the GPU and back are part of it. Precision is the file's: FP32
(TF32 if told so), or INT8 where it has quantizers. Building plans and reading what TensorRT tells of them is tested
without a GPU, by way of TensorRT for RTX; loading a plan, running and profiling it have not been run so far.
"""

from __future__ import annotations

import importlib
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from ovit_deploy.engines import cuda, plan
from ovit_deploy.errors import EngineError


class Engine:
    """A plan with its execution context on the first GPU."""

    name, module, install = "tensorrt", "tensorrt", "pip install tensorrt, from where NVIDIA's index can be reached"

    def start(self) -> None:
        """Ask the driver for a GPU, then import TensorRT."""
        cuda.require(self.name)
        try:
            self.trt = importlib.import_module(self.module)
        except ImportError as error:
            raise EngineError(f"{self.name} cannot be imported: {error}", self.install) from None

    def load(self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any]) -> None:
        """Build the plan for the shape of ``images``, and make it ready; ``threads`` are the host's and not used."""
        self.log = plan.logger(self.trt)
        self.device = cuda.Device()
        allowed = {"sparse": bool(options["sparse_weights"]), "tf32": options["precision"] == "tf32"}
        built = plan.build(self.trt, self.log, path, images.shape, **allowed)
        self.engine = self.trt.Runtime(self.log).deserialize_cuda_engine(built)
        if self.engine is None:
            raise EngineError(f"{self.name} cannot load its plan: {self.log.last_error}")
        self.context = self.engine.create_execution_context()
        self.input, self.output = (self._tensor(mode) for mode in ("INPUT", "OUTPUT"))
        self.context.set_input_shape(self.input, tuple(images.shape))
        self.answer = self._empty(self.output)
        self.addresses = {
            self.input: self.device.allocate(self._empty(self.input).nbytes),
            self.output: self.device.allocate(self.answer.nbytes),
        }
        for name, address in self.addresses.items():
            self.context.set_tensor_address(name, address)

    def run(self, images: np.ndarray) -> np.ndarray:
        """The logits, as float32."""
        wanted = self.trt.nptype(self.engine.get_tensor_dtype(self.input))
        self.device.upload(self.addresses[self.input], np.ascontiguousarray(images, dtype=wanted))
        if not self.context.execute_async_v3(self.device.stream):
            raise EngineError(f"{self.name} does not run: {self.log.last_error}")
        self.device.download(self.addresses[self.output], self.answer)
        self.device.wait()
        return self.answer.astype(np.float32)

    def profile(
        self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any], count: int
    ) -> list[dict[str, Any]]:
        """The plan's layers with their kernels, timed one after the other by TensorRT's profiler."""
        total_ms: defaultdict[str, float] = defaultdict(float)
        trt = self.trt

        class Clock(trt.IProfiler):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)

            def report_layer_time(self, layer: str, ms: float) -> None:
                total_ms[layer] += ms

        self.context.profiler = Clock()
        for _ in range(count):
            self.run(images)
        return [{**layer, "ms": total_ms[layer["layer"]] / count} for layer in self._layers()]

    def describe(self) -> dict[str, Any]:
        """Version, GPU, kernels by precision (``sparse`` is one), and what the builder told of sparsity."""
        layers = self._layers()
        return {
            "version": self.trt.__version__,
            "gpu": self.device.name,
            "sparsity": plan.sparsity_told(self.log.lines),
            "precisions": dict(Counter(layer["precision"] for layer in layers if layer["precision"] != "none")),
            "layers": layers,
        }

    def _layers(self) -> list[dict[str, Any]]:
        inspector = self.engine.create_engine_inspector()
        return plan.layers(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))

    def _tensor(self, mode: str) -> str:
        """The name of the first tensor of this mode."""
        wanted = getattr(self.trt.TensorIOMode, mode)
        names = [self.engine.get_tensor_name(number) for number in range(self.engine.num_io_tensors)]
        return next(name for name in names if self.engine.get_tensor_mode(name) == wanted)

    def _empty(self, name: str) -> np.ndarray:
        """An array of a tensor's shape and type."""
        return np.empty(tuple(self.context.get_tensor_shape(name)), self.trt.nptype(self.engine.get_tensor_dtype(name)))
