"""The compiled half of the engine, spoken to by ctypes: native/api.cpp."""

from __future__ import annotations

import ctypes
import weakref
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_long, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ovit_deploy.engines.sparse.build import HERE, library
from ovit_deploy.engines.sparse.network import Activation, Block, LayerNorm, Linear, Network, Range
from ovit_deploy.errors import EngineError

Level = Literal["portable", "avx2", "avx512"]
Form = Literal["fastest", "dense", "sparse"]
PLACES = ("norm1", "attn.qkv", "attn", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
_ACTIVATIONS: tuple[Activation | None, ...] = (None, "gelu", "gelu_tanh", "relu", "silu")


class _Range(ctypes.Structure):
    _fields_ = (("scale", c_float), ("zero_point", c_int32))


class _Linear(ctypes.Structure):
    _fields_ = (
        ("out", c_int32),
        ("in", c_int32),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("integers", c_void_p),
        ("scale", c_void_p),
        ("input", _Range),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("features", c_int32), ("weight", c_void_p), ("bias", c_void_p), ("epsilon", c_float))


class _Block(ctypes.Structure):
    _fields_ = (
        ("norm1", _Norm),
        ("norm2", _Norm),
        ("qkv", _Linear),
        ("proj", _Linear),
        ("fc1", _Linear),
        ("fc2", _Linear),
        ("heads", c_int32),
        ("activation", c_int32),
        ("scale", c_float),
        ("query", _Range),
        ("key", _Range),
        ("probabilities", _Range),
        ("value", _Range),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("channels", "height", "width", "patch", "prefix", "features", "average")),
        ("prefix_tokens", c_void_p),
        ("position", c_void_p),
    )


@cache
def load(level: Level, folder: Path = HERE) -> ctypes.CDLL:
    """The library of a level.

    Raises:
        EngineError: it was not compiled.
    """
    path = library(level, folder)
    if not path.is_file():
        raise EngineError(
            f"the sparse engine is not compiled for {level}",
            "install a C++17 compiler (apt install g++), then pip install ovit-deploy again from its sources",
        )
    native = ctypes.CDLL(str(path))
    native.ovit_error.restype, native.ovit_new.restype = c_char_p, c_void_p
    native.ovit_new.argtypes = [POINTER(_Model), POINTER(_Linear)]
    native.ovit_free.argtypes, native.ovit_free.restype = [c_void_p], None
    native.ovit_norm.argtypes = [c_void_p, c_int, POINTER(_Norm)]
    native.ovit_block.argtypes = [c_void_p, POINTER(_Block)]
    native.ovit_head.argtypes = [c_void_p, POINTER(_Linear)]
    native.ovit_ready.argtypes = [c_void_p, c_int, c_int]
    native.ovit_run.argtypes = [c_void_p, c_void_p, c_long, c_void_p]
    native.ovit_peak.argtypes, native.ovit_peak.restype = [c_int], c_double
    native.ovit_places.argtypes, native.ovit_places.restype = [c_void_p], c_long
    native.ovit_profile.argtypes = [c_void_p, c_void_p, c_long, c_void_p, c_void_p]
    native.ovit_forms.argtypes = [c_void_p, POINTER(c_int), POINTER(c_long)]
    return native


def best_level(folder: Path = HERE) -> Level:
    """The highest level that this processor has."""
    return get_args(Level)[load("portable", folder).ovit_level()]


class Native:
    """A network in the compiled engine; runs at the same time do not disturb each other.

    Args:
        network: What to compute; its arrays are copied.
        threads: Of a run.
        form: Of the layers: the faster one by timing, or always the same.
        level: Of instructions; by default the best that this processor has.
        folder: Of the libraries.

    Raises:
        EngineError: the library is not there, or the numbers do not fit together.
    """

    def __init__(
        self,
        network: Network,
        *,
        threads: int = 1,
        form: Form = "fastest",
        level: Level | None = None,
        folder: Path = HERE,
    ) -> None:
        check(network)
        self.network, self.level = network, level or best_level(folder)
        self._native = load(self.level, folder)
        arrays = _Arrays()
        prefix, position = arrays.floats(network.prefix), arrays.floats(network.position)
        spec = _Model(
            network.channels,
            network.height,
            network.width,
            network.patch,
            len(network.prefix),
            network.features,
            int(network.pooling == "average"),
            prefix,
            position,
        )
        self._model = self._native.ovit_new(spec, arrays.linear(network.embedding))
        if not self._model:
            raise self._failure()
        self._end = weakref.finalize(self, self._native.ovit_free, self._model)
        for which, norm in enumerate((network.norm_pre, network.norm, network.head_norm)):
            if norm is not None:
                self._do("ovit_norm", which, arrays.norm(norm))
        for block in network.blocks:
            self._do("ovit_block", arrays.block(block))
        for head in network.heads:
            self._do("ovit_head", arrays.linear(head))
        self._do("ovit_ready", threads, get_args(Form).index(form))

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits [batch, classes] of images [batch, channels, height, width].

        Raises:
            EngineError: images of another shape, or no memory for so many.
        """
        one = (self.network.channels, self.network.height, self.network.width)
        if images.ndim != 4 or images.shape[1:] != one:
            raise EngineError(f"images of shape {images.shape}, the model takes [batch, {one[0]}, {one[1]}, {one[2]}]")
        images = np.ascontiguousarray(images, np.float32)
        logits = np.empty((len(images), len(self.network.heads[0].weight)), np.float32)
        self._do("ovit_run", images.ctypes.data, len(images), logits.ctypes.data)
        return logits

    def profile(self, images: np.ndarray) -> np.ndarray:
        """Seconds, added over threads, of the embedding, the PLACES of every block, and what follows the blocks."""
        images = np.ascontiguousarray(images, np.float32)
        logits = np.empty((len(images), len(self.network.heads[0].weight)), np.float32)
        seconds = np.empty(self._native.ovit_places(self._model))
        self._do("ovit_profile", images.ctypes.data, len(images), logits.ctypes.data, seconds.ctypes.data)
        return seconds

    def peak(self, *, integers: bool) -> float:
        """Operations a second of one core at most, with factors in registers; of integers those in eight bits."""
        return self._native.ovit_peak(int(integers))

    def entries(self) -> list[int | None]:
        """Words that are held of the embedding, the four products of every block, and the heads; None of dense ones."""
        count = 1 + 4 * len(self.network.blocks) + len(self.network.heads)
        sparse, entries = (c_int * count)(), (c_long * count)()
        self._do("ovit_forms", sparse, entries)
        return [held if chosen else None for chosen, held in zip(sparse, entries, strict=True)]

    def _do(self, function: str, *args: Any) -> None:
        if getattr(self._native, function)(self._model, *args):
            raise self._failure()

    def _failure(self) -> EngineError:
        return EngineError(f"the sparse engine: {self._native.ovit_error().decode()}")


class _Arrays:
    """Networks as C structures; holds the arrays that they point to."""

    def __init__(self) -> None:
        self.held: list[np.ndarray] = []

    def floats(self, array: np.ndarray, kind: type = np.float32) -> int:
        self.held.append(np.ascontiguousarray(array, kind))
        return self.held[-1].ctypes.data

    def linear(self, linear: Linear) -> _Linear:
        out, size = linear.weight.shape
        bias = self.floats(linear.bias)
        if linear.scale is None or linear.input is None:
            return _Linear(out, size, self.floats(linear.weight), bias, None, None, _Range())
        integers = self.floats(linear.weight, np.int8)
        return _Linear(out, size, None, bias, integers, self.floats(linear.scale), _range(linear.input))

    def norm(self, norm: LayerNorm) -> _Norm:
        return _Norm(len(norm.weight), self.floats(norm.weight), self.floats(norm.bias), norm.epsilon)

    def block(self, block: Block) -> _Block:
        attention = block.attention
        return _Block(
            self.norm(block.norm1),
            self.norm(block.norm2),
            self.linear(attention.qkv),
            self.linear(attention.proj),
            self.linear(block.mlp.fc1),
            self.linear(block.mlp.fc2),
            attention.heads,
            _ACTIVATIONS.index(block.mlp.activation),
            attention.scale,
            *map(_range, (attention.query, attention.key, attention.probabilities, attention.value)),
        )


def _range(found: Range | None) -> _Range:
    return _Range() if found is None else _Range(found.scale, found.zero_point)


def check(network: Network) -> None:
    """Shapes that go together: the compiled half trusts them.

    Raises:
        EngineError: they do not; the file that they came from lies.
    """
    features, patch = network.features, network.patch
    pixels = network.channels * patch * patch
    sizes = [network.height % patch == 0 == network.width % patch, network.heads != ()]
    sizes += [network.position.shape == ((network.height // patch) * (network.width // patch), features)]
    sizes += [network.prefix.ndim == 2 and network.prefix.shape[1] == features]
    sizes += [network.pooling == "average" or len(network.heads) <= network.tokens]
    for linear, size in [(network.embedding, pixels), *((head, features) for head in network.heads)]:
        sizes.append(_fits(linear, size))
    sizes += [len(head.weight) == len(network.heads[0].weight) for head in network.heads]
    for norm in (network.norm_pre, network.norm, network.head_norm):
        sizes.append(norm is None or norm.weight.shape == norm.bias.shape == (features,))
    for block in network.blocks:
        inner = block.attention.proj.weight.shape[1]
        sizes += [norm.weight.shape == norm.bias.shape == (features,) for norm in (block.norm1, block.norm2)]
        sizes += [_fits(block.attention.qkv, features, 3 * inner), _fits(block.attention.proj, inner, features)]
        sizes += [block.attention.heads > 0 and inner % max(1, block.attention.heads) == 0]
        attention = block.attention
        ranges = (attention.query, attention.key, attention.probabilities, attention.value)
        sizes += [all(ranges) or not any(ranges)]
        sizes += [_fits(block.mlp.fc1, features), _fits(block.mlp.fc2, len(block.mlp.fc1.weight), features)]
    if not all(sizes):
        raise EngineError("the shapes of the network do not go together", "export it again")


def _fits(linear: Linear, size: int, out: int | None = None) -> bool:
    shape = linear.weight.shape
    if len(shape) != 2 or shape[1] != size or (out is not None and shape[0] != out) or linear.bias.shape != shape[:1]:
        return False
    if linear.scale is None:
        return linear.weight.dtype == np.float32
    return linear.weight.dtype == np.int8 and linear.scale.shape == shape[:1] and linear.input is not None
