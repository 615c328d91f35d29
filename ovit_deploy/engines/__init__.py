"""Inference engines, each run in a process of its own: numpy in, numpy out.

    base.py          what an engine can do (Protocol) and what is known of it before it runs (Traits)
    onnxruntime.py   one file a runtime; the runtime is imported in start(), never at module level
    openvino.py
    pytorch.py
    deepsparse.py
    ovit.py          our own: sparse/
    selection.py     an engine with values for its options, as one word: openvino:precision=bf16
    inventory.py     which engines are here, in which version, and how to install the others
    environments.py  which Python runs an engine; makes DeepSparse's own environment on first use
    worker.py        the child process: JSON lines in and out
    process.py       the parent's handle of it: a crash, a hang or a refusal becomes an EngineError

The files that the child imports (base, the runtimes, worker) keep to the standard library, numpy and syntax
of Python 3.8, because the child may live in a foreign environment. Two live in ours for certain: PyTorch's builds
its model with ``ovit_deploy.models``, and ours reads graphs with onnx. To add an engine: one file with a class
``Engine``, and its traits below.
"""

from __future__ import annotations

import importlib

from ovit_deploy.engines.base import Engine, Option, Traits

PRECISION = Option("the precision it computes in", "f32", choices=("f32", "bf16"), rounding=("bf16",))
SPARSE_WEIGHTS = Option("decompress weights with at least this fraction of zeros; 1 switches it off", 1.0)
COMPILE = Option("compile the model with torch.compile", default=False)

ENGINES = {
    "onnxruntime": Traits(package="onnxruntime", licence="MIT", install="pip install onnxruntime"),
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
    "ovit": Traits(
        package="ovit-deploy",
        licence="MIT",
        install="install a C++17 compiler, then pip install ovit-deploy from its sources",
        compiled="sparse/_native_portable.so",
    ),
    "deepsparse": Traits(
        package="deepsparse",
        licence="evaluation and non-commercial use only",
        install="ovit-deploy engines install deepsparse",
        max_ir=9,
        max_opset=19,
        pins=("deepsparse==1.8.0", "sparsezoo==1.8.1", "numpy<2", "onnx<1.15"),
        variables={"NM_DISABLE_ANALYTICS": "True", "NM_VERSION_CHECK": "false"},
    ),
}


def create(name: str) -> Engine:
    """The engine called ``name``, its runtime not yet imported."""
    return importlib.import_module(f"ovit_deploy.engines.{name}").Engine()
