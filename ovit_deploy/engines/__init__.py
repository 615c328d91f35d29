"""Inference engines, each run in a process of its own: numpy in, numpy out.

    base.py          what an engine can do (Protocol) and what is known of it before it runs (Traits)
    onnxruntime.py   one file a runtime; the runtime is imported in load(), never at module level
    deepsparse.py
    environments.py  which Python runs an engine; makes DeepSparse's own environment on first use
    worker.py        the child process: JSON lines in and out
    process.py       the parent's handle of it: a crash, a hang or a refusal becomes an EngineError

The files that the child imports (base, the runtimes, worker) keep to the standard library, numpy and syntax
of Python 3.8, because the child may live in a foreign environment. To add an engine: one file with a class
``Engine``, and its traits below.
"""

from __future__ import annotations

import importlib

from ovit_deploy.engines.base import Engine, Traits

ENGINES = {
    "onnxruntime": Traits(),
    "deepsparse": Traits(
        max_ir=9,
        max_opset=19,
        pins=("deepsparse==1.8.0", "sparsezoo==1.8.1", "numpy<2", "onnx<1.15"),
        variables={"NM_DISABLE_ANALYTICS": "True", "NM_VERSION_CHECK": "false"},
    ),
}


def create(name: str) -> Engine:
    """The engine called ``name``, its runtime not yet imported."""
    return importlib.import_module(f"ovit_deploy.engines.{name}").Engine()
