"""TensorRT for RTX: the same interface for consumers' GPUs, in wheels that hold the whole library.

It builds plans without a GPU, which is how the tests read files and build plans with TensorRT's code; kernels are then
chosen on the GPU when a plan is loaded. It tells nothing of sparsity.
"""

from __future__ import annotations

from ovit_deploy.engines import tensorrt


class Engine(tensorrt.Engine):
    """TensorRT's engine with the other library."""

    name, module = "tensorrt_rtx", "tensorrt_rtx_bindings"
    install = "ovit-deploy engines install tensorrt_rtx"
