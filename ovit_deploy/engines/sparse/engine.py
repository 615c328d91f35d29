"""An exported model, ready to run; the width of its panels is the fastest one here."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from ovit_deploy.engines.sparse.library import PANELS, Form, Level, Native
from ovit_deploy.engines.sparse.network import Network
from ovit_deploy.engines.sparse.recognize import recognize


class Engine:
    """A vision transformer that this package exported, in this process. Calls of `run` from several threads are fine.

    Args:
        path: model.onnx of ``export --onnx``; of a quantized model with ``--profile onnxruntime_int8``.
        threads: of a run.
        batch_size: for which the width of the panels is chosen; any batch can be run.
        panel: that width; None times them.
        form: of float layers; ``fastest`` times them.
        level: of instructions; by default the best here.

    Raises:
        EngineError: the file is not whole, or not such a model; or the engine is not compiled.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int = 1,
        batch_size: int = 1,
        panel: int | None = None,
        form: Form = "fastest",
        level: Level | None = None,
    ) -> None:
        self.network = recognize(os.fspath(path))
        settings: dict[str, Any] = {"threads": threads, "form": form, "level": level}
        self.panel = panel or fastest_panel(self.network, batch_size, settings)
        self.native = Native(self.network, panel=self.panel, **settings)

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits [batch, classes] of images [batch, channels, height, width]."""
        return self.native.run(images)

    def describe(self) -> dict[str, Any]:
        """Instructions, width of the panels, and the form of every layer with the entries that it holds."""
        return {
            "instructions": self.native.level,
            "panel": self.panel,
            "layers": dict(zip(_names(self.network), map(_told, self.native.forms()), strict=True)),
        }


def fastest_panel(network: Network, batch_size: int, settings: dict[str, Any]) -> int:
    """The width that runs a batch in the least time, of three runs each; narrow ones waste less on few tokens."""
    images = np.zeros((batch_size, network.channels, network.height, network.width), np.float32)
    return min(PANELS, key=lambda panel: _seconds(Native(network, panel=panel, **settings), images))


def _seconds(native: Native, images: np.ndarray) -> float:
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        native.run(images)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _names(network: Network) -> list[str]:
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    inner = [f"blocks.{number}.{layer}" for number in range(len(network.blocks)) for layer in layers]
    return ["patch_embed", *inner, *(f"head{number or ''}" for number in range(len(network.heads)))]


def _told(form: tuple[str, int]) -> dict[str, Any]:
    return {"form": form[0]} if form[0] == "dense" else {"form": form[0], "entries": form[1]}
