"""Inference engines, each run in a process of its own: numpy in, numpy out.

    base.py          what an engine can do (Protocol) and what is known of it before it runs (Traits)
    onnxruntime.py   one file a runtime; the runtime is imported in start(), never at module level
    openvino.py
    pytorch.py
    deepsparse.py
    ovit.py          our own: sparse/
    pytorch_cuda.py  on NVIDIA GPUs: dense, or 2:4 where that is faster
    tensorrt.py      likewise, with what plan.py builds; tensorrt_rtx.py
    cuda.py          the driver: is there a GPU
    selection.py     an engine with values for its options, as one word: openvino:precision=bf16
    inventory.py     which engines are here, in which version, and how to install the others
    environments.py  which Python runs an engine; makes DeepSparse's own environment on first use
    worker.py        the child process: JSON lines in and out
    process.py       the parent's handle of it: a crash, a hang or a refusal becomes an EngineError

The files that the child imports (base, the runtimes, worker) keep to the standard library, numpy and syntax
of Python 3.8, because the child may live in a foreign environment. Some live in ours for certain: PyTorch's build
their model with ``ovit_deploy.models``, and ours reads graphs with onnx. To add an engine: one file with a class
``Engine``, and its traits below.
"""

from __future__ import annotations

import importlib

from ovit_deploy.engines.base import Engine, Machine, Option, Traits

PRECISION = Option("the precision it computes in", "f32", choices=("f32", "bf16"), rounding=("bf16",))
SPARSE_WEIGHTS = Option("decompress weights with at least this fraction of zeros; 1 switches it off", 1.0)
PROVIDER = Option("what runs the graph", "cpu", choices=("cpu", "cuda", "tensorrt"), rounding=("tensorrt",))
GPU_PRECISION = Option("the precision it computes in", "f16", choices=("f16", "bf16", "f32"), rounding=("f16", "bf16"))
SEMI_STRUCTURED = Option("2:4 kernels in each layer that has such weights and is faster so", default=False)
TF32 = Option("float32 products as they are, or rounded to TF32", "f32", choices=("f32", "tf32"), rounding=("tf32",))
SPARSE_KERNELS = Option("let it choose 2:4 kernels where they are faster", default=True)
COMPILE = Option("compile the model with torch.compile", default=False)

ENGINES = {
    "onnxruntime": Traits(
        package="onnxruntime",
        licence="MIT",
        install="pip install onnxruntime",
        options={"provider": PROVIDER},
    ),
    "openvino": Traits(
        package="openvino",
        licence="Apache-2.0",
        install="pip install 'ovit-deploy[openvino]'",
        options={"precision": PRECISION, "sparse_weights": SPARSE_WEIGHTS},
    ),
    "pytorch": Traits(
        package="torch",
        licence="BSD-3-Clause",
        install="pip install torch",
        reads="checkpoint",
        variables={"TORCHINDUCTOR_COMPILE_THREADS": "1"},
        options={"precision": PRECISION, "compile": COMPILE},
    ),
    "pytorch_cuda": Traits(
        package="torch",
        licence="BSD-3-Clause",
        install="pip install torch",
        reads="checkpoint",
        gpu=True,
        options={"precision": GPU_PRECISION, "semi_structured": SEMI_STRUCTURED, "compile": COMPILE},
    ),
    "tensorrt": Traits(
        package="tensorrt",
        licence="NVIDIA's, proprietary",
        install="pip install tensorrt, from where NVIDIA's index can be reached",
        gpu=True,
        options={"precision": TF32, "sparse_weights": SPARSE_KERNELS},
    ),
    "tensorrt_rtx": Traits(
        package="tensorrt-rtx-cu13-bindings",
        licence="NVIDIA's, proprietary",
        install="ovit-deploy engines install tensorrt_rtx",
        pins=("tensorrt-rtx-cu13-bindings==1.7.1.116", "tensorrt-rtx-cu13-libs==1.7.1.116", "numpy"),
        gpu=True,
        options={"precision": TF32, "sparse_weights": SPARSE_KERNELS},
    ),
    "ovit": Traits(
        package="ovit-deploy",
        licence="MIT",
        install="install a C++17 compiler, then pip install ovit-deploy from its sources",
        whole_blocks=True,
        compiled="sparse/_native_portable.so",
    ),
    "deepsparse": Traits(
        package="deepsparse",
        licence="evaluation and non-commercial use only",
        install="ovit-deploy engines install deepsparse",
        max_ir=9,
        max_opset=19,
        wrong_depthwise=(7, 4),  # it reads memory that nobody wrote; the sizes around are right
        pins=("deepsparse==1.8.0", "sparsezoo==1.8.1", "numpy<2", "onnx<1.15"),
        machine=Machine("Linux", "x86_64", frozenset({"avx2"})),
        old_python=True,
        variables={"NM_DISABLE_ANALYTICS": "True", "NM_VERSION_CHECK": "false"},
    ),
}


def create(name: str) -> Engine:
    """The engine called ``name``, its runtime not yet imported."""
    return importlib.import_module(f"ovit_deploy.engines.{name}").Engine()
