"""The sparse engine: sparse weights times dense activations, tokens along the vector.

    engine = Engine("model.onnx", threads=2)
    logits = engine.run(images)           # float32 [batch, channels, height, width] -> [batch, classes]

network.py       a vision transformer as arrays
graph.py         an ONNX graph to walk along
fuse.py          elementary operators back to large ones
recognize.py     from an exported graph to a network
library.py       a network in the compiled half
roofline.py      what every layer takes, and how much of the processor's peak that is
native/          the compiled half, in C++17: one source for AVX-512, AVX2, NEON and plain machines
build.py         compiles it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ovit_deploy.engines.sparse.engine import Engine

__all__ = ["Engine"]


def __getattr__(name: str) -> object:
    if name != "Engine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ovit_deploy.engines.sparse.engine import Engine

    return Engine
