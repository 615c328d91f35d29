"""What every engine can do, and what is known of one before it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


class Engine(Protocol):
    """One model in one runtime. Numpy in, numpy out."""

    def load(self, path: str, *, batch_size: int, threads: int) -> None:
        """Import the runtime and build the model for one batch size and a number of threads.

        Raises:
            EngineError: the runtime is missing or does not fit, or the graph is refused.
        """

    def run(self, images: np.ndarray) -> np.ndarray:
        """The logits [batch, classes] of ``images`` [batch, C, H, W]."""

    def describe(self) -> dict[str, Any]:
        """Version, instruction sets and whatever else tells what ran; call it after load()."""


@dataclass(frozen=True)
class Traits:
    """Facts on an engine that are needed before it runs.

    Args:
        max_ir: newest ONNX IR version it reads; None for no known limit.
        max_opset: newest opset of the default domain it reads.
        pins: what pip installs into its own environment; empty if it lives in ours.
        variables: environment variables set before its runtime is imported.
    """

    max_ir: int | None = None
    max_opset: int | None = None
    pins: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)
