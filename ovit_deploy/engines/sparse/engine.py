"""An exported model, ready to run."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ovit_deploy.engines.sparse import roofline
from ovit_deploy.engines.sparse.library import Form, Level, Native
from ovit_deploy.engines.sparse.network import Linear, Network
from ovit_deploy.engines.sparse.recognize import recognize


class Engine:
    """A vision transformer that this package exported, in this process. Calls of `run` from several threads are fine.

    Args:
        path: model.onnx of ``export --onnx``; of a quantized model with ``--profile onnxruntime_int8``.
        threads: of a run.
        form: of the layers; ``fastest`` times them.
        level: of instructions; by default the best here.

    Raises:
        EngineError: the file is not whole, or not such a model; or the engine is not compiled.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 1,
        form: Form = "fastest",
        level: Level | None = None,
    ) -> None:
        self.network = recognize(os.fspath(path))
        self.native = Native(self.network, threads=threads, form=form, level=level)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits [batch, classes] of images [batch, channels, height, width]."""
        return self.native.run(images)

    def profile(self, images: np.ndarray, count: int) -> list[dict[str, Any]]:
        """What each layer takes: `roofline.layers`."""
        return roofline.layers(self.native, images, count)

    def describe(self) -> dict[str, Any]:
        """Instructions, and of every layer its precision and its form, with the words that a sparse one holds."""
        layers = zip(_layers(self.network), self.native.entries(), strict=True)
        told = {name: _told(linear, entries) for (name, linear), entries in layers}
        return {"instructions": self.native.level, "layers": told}


_LINEARS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def _layers(network: Network) -> list[tuple[str, Linear]]:
    found = [("patch_embed", network.embedding)]
    for number, block in enumerate(network.blocks):
        linears = (block.attention.qkv, block.attention.proj, block.mlp.fc1, block.mlp.fc2)
        found += [(f"blocks.{number}.{place}", linear) for place, linear in zip(_LINEARS, linears, strict=True)]
    return found + [(f"head{number or ''}", head) for number, head in enumerate(network.heads)]


def _told(linear: Linear, entries: int | None) -> dict[str, Any]:
    precision = "float32" if linear.scale is None else "int8"
    if entries is None:
        return {"precision": precision, "form": "dense"}
    return {"precision": precision, "form": "sparse", "entries": entries}
