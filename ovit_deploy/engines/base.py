"""What every engine can do, and what is known of one before it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

READS = ("onnx", "checkpoint")


class Engine(Protocol):
    """One model in one runtime. Numpy in, numpy out. The methods are called in this order."""

    def start(self) -> None:
        """Import the runtime.

        Raises:
            EngineError: it is missing, or does not fit.
        """

    def load(self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any]) -> None:
        """Build the model for batches like ``images`` [batch, C, H, W] and a number of threads.

        Args:
            path: the file, of the kind that the engine's traits name.
            images: one batch; its shape is that of every batch to come.
            threads: how many the runtime may use.
            options: a value for every option of the engine's traits.

        Raises:
            EngineError: the graph is refused.
        """

    def run(self, images: np.ndarray) -> np.ndarray:
        """The logits [batch, classes] of ``images`` [batch, C, H, W]."""

    def profile(
        self, path: str, *, images: np.ndarray, threads: int, options: dict[str, Any], count: int
    ) -> list[dict[str, Any]]:
        """What each layer of the model takes, by the runtime's own profiler; the model is built once more for it.

        Returns:
            Layers in the order they run, each with its ``names`` (of the graph's nodes or values that it stands for),
            ``type``, ``kernel``, ``precision`` and ``ms`` (mean of ``count`` runs), and what else the runtime tells.
            DeepSparse tells no precision, but whether a kernel is ``sparse`` or ``dense``; ``none`` is a layer that has
            neither.

        Raises:
            EngineError: the runtime has no profiler that tells layers.
        """

    def describe(self) -> dict[str, Any]:
        """Version, and the evidence of what ran: instruction sets, precisions, as far as the runtime tells."""


@dataclass(frozen=True)
class Option:
    """A switch of an engine; the type of its values is that of ``default``.

    Args:
        what: in words, for the user.
        default: the value when none is given.
        choices: the values there are; empty for any, numbers from 0 to 1.
        rounding: values that make the engine compute in less than float32.
    """

    what: str
    default: bool | float | str
    choices: tuple[str, ...] = ()
    rounding: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """The only machines that a runtime has binaries for.

    Args:
        system: as ``platform.system`` names it.
        processor: as ``platform.machine`` names it.
        instructions: sets of them that the processor must have, as Linux names them.
    """

    system: str
    processor: str
    instructions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Traits:
    """Facts on an engine that are needed before it runs.

    Args:
        package: the distribution whose version is the engine's.
        licence: of the runtime.
        install: the command that installs it.
        reads: kind of file: ``onnx``, or ``checkpoint`` for safetensors that say which timm model they hold.
        max_ir: newest ONNX IR version it reads; None for no known limit.
        max_opset: newest opset of the default domain it reads.
        pins: what pip installs into its own environment; empty if it lives in ours.
        machine: the only machines that it runs on; None for wherever it can be installed.
        old_python: whether that one needs a Python from 3.8 to 3.11; else it gets ours.
        variables: environment variables set before its runtime is imported.
        options: by name.
        gpu: whether it runs on NVIDIA GPUs and nowhere else.
        whole_blocks: whether it knows transformer blocks as a whole only, and runs no graph of parts of them.
        wrong_depthwise: kernel and image, both in pixels a side, of the depthwise convolution that it computes wrong.
        compiled: a file in this folder that is made when the package is installed, where there is a compiler; the
            engine is here if the file is.
    """

    package: str
    licence: str
    install: str
    reads: str = "onnx"
    max_ir: int | None = None
    max_opset: int | None = None
    pins: tuple[str, ...] = ()
    machine: Machine | None = None
    old_python: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    options: dict[str, Option] = field(default_factory=dict)
    gpu: bool = False
    whole_blocks: bool = False
    wrong_depthwise: tuple[int, int] | None = None
    compiled: str | None = None

    def __post_init__(self) -> None:
        assert self.reads in READS
