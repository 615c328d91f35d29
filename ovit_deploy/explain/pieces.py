"""Short models to be timed: a few copies of one block of the real one, exported as it would be.

A transformer block takes the same time wherever it stands, so the difference between a model with three copies of it
and one with none is three times its time in context: fused as the engine fuses it, between neighbours. Weights are
random (their values cost no time), and zeros are drawn into the exported file, so one export serves all sparsities.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir
import timm.data
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ovit_deploy.bench import graph
from ovit_deploy.bench.subject import sample_images
from ovit_deploy.errors import ModelError
from ovit_deploy.export.profile import load_profile
from ovit_deploy.export.to_onnx import to_onnx
from ovit_deploy.quantization import calibrate, fixed, freeze_observers, insert
from ovit_deploy.recipe.quantization import NAMED, Quantization
from ovit_deploy.structure import BlockSizes, Structure, merging_of, shrink

LAYERS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
Part = Literal["all", "without products", "linears", "half MLP"]
File = Literal["fp32", "deepsparse_int8", "onnxruntime_int8"]
Pattern = Literal["unstructured", "block4", "2:4"]
_GROUP = 4  # weights of block4, and of 2:4
_SCHEMES = {"deepsparse_int8": "deepsparse", "onnxruntime_int8": "default"}
_CALIBRATION_IMAGES = 8


@dataclass(frozen=True)
class Piece:
    """A model with few blocks.

    Args:
        blocks: Which of the real model's, one after the other.
        part: All of a block; all but the two products of attention and its softmax; its linear layers alone; or all
            with half of the MLP's hidden width.
        file: In which form it is written: floats for any engine, or INT8 as one of two kinds of engines wants it.
        zeros: Fraction of zeros of each of LAYERS in every block.
        pattern: How the zeros lie.
        sizes: Heads and neurons of each block, where some are taken out.
    """

    blocks: tuple[int, ...]
    part: Part = "all"
    file: File = "fp32"
    zeros: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    pattern: Pattern = "unstructured"
    sizes: tuple[int, int] | None = None

    def __str__(self) -> str:
        blocks = ",".join(map(str, self.blocks)) or "none"
        zeros = "/".join(f"{value:g}" for value in self.zeros)
        sizes = f"; {self.sizes[0]} heads, {self.sizes[1]} neurons" if self.sizes else ""
        return f"blocks {blocks}; {self.part}; {self.file}; {zeros} {self.pattern}{sizes}"


class Workshop:
    """Makes the files of pieces; what was exported once is kept for other zeros.

    Args:
        model: A timm vision transformer, on the CPU; it is left alone.
        folder: For the files.
        batch_size: Images a run.
        seed: Of weights, zeros and images.
    """

    def __init__(self, model: nn.Module, folder: Path, *, batch_size: int, seed: int) -> None:
        require_blocks(model)
        self.model, self.folder, self.batch_size, self.seed = model, folder, batch_size, seed
        self.image_shape = tuple(timm.data.resolve_model_data_config(model)["input_size"])
        self._exports: dict[Piece, onnx.ModelProto] = {}
        self._files: dict[Piece, Path] = {}

    @property
    def images(self) -> Path:
        """One batch of random normal images (npy)."""
        path = self.folder / "images.npy"
        if not path.exists():
            wanted = graph.Input("images", None, self.image_shape, np.dtype(np.float32))
            values, _ = sample_images(wanted, None, seed=self.seed)
            np.save(path, np.resize(values, (self.batch_size, *self.image_shape)))
        return path

    def file(self, piece: Piece) -> Path:
        """The ONNX file of a piece, made at its first use."""
        if piece not in self._files:
            path = self.folder / f"piece_{len(self._files)}.onnx"
            onnx.save(with_zeros(self._export(piece), piece, seed=self.seed), path)
            self._files[piece] = path
        return self._files[piece]

    def _export(self, piece: Piece) -> onnx.ModelProto:
        dense = Piece(piece.blocks, piece.part, piece.file, sizes=piece.sizes)
        if dense not in self._exports:
            model = shortened(self.model, piece.blocks, part=piece.part, seed=self.seed)
            if piece.sizes:
                shrink(model, Structure(tuple(BlockSizes(n, *piece.sizes) for n in range(len(piece.blocks)))))
            profile = "deepsparse"  # which every engine reads
            if piece.file != "fp32":
                profile, model = piece.file, rounded(model, self.image_shape, scheme=_SCHEMES[piece.file])
            images = torch.zeros(1, *self.image_shape)
            exported = onnx_ir.to_proto(to_onnx(model, images, profile=load_profile(profile)))
            self._exports[dense] = graph.with_batch(exported, self.batch_size)
        return self._exports[dense]


def require_blocks(model: nn.Module) -> None:
    """Refuse a model that has no blocks of timm's vision transformers.

    Raises:
        ModelError: There are none, or some have other layers.
    """
    blocks = getattr(model, "blocks", None)
    if merging_of(model) is not None:
        raise ModelError("tokens are merged: a block does not take the same time wherever it stands", "use bench")
    fitting = isinstance(blocks, nn.Sequential) and len(blocks) > 0
    if not fitting or any(not _is_linear(block, layer) for block in blocks for layer in LAYERS):
        raise ModelError(
            f"{type(model).__name__} has no blocks of attn.qkv, attn.proj, mlp.fc1 and mlp.fc2",
            "explain takes timm's vision transformers, such as deit_small_patch16_224; bench times any model",
        )


def blocks_of(model: nn.Module) -> list[Any]:
    """The blocks of a vision transformer."""
    return list(model.blocks)  # type: ignore[arg-type]


def kinds(model: nn.Module) -> list[int]:
    """For each block the number of the first block of its shape."""
    firsts: dict[tuple[object, ...], int] = {}
    found = []
    for number, block in enumerate(blocks_of(model)):
        shapes = ((name, tuple(value.shape)) for name, value in block.named_parameters())
        found.append(firsts.setdefault((block.attn.num_heads, *shapes), number))
    return found


def shortened(model: nn.Module, blocks: Sequence[int], *, part: Part, seed: int) -> nn.Module:
    """A copy with these blocks only, or parts of them, and random weights in their linear layers."""
    own, model.blocks = model.blocks, nn.Sequential()  # so that the others are not copied
    try:
        short = copy.deepcopy(model)
    finally:
        model.blocks = own
    draw = torch.Generator().manual_seed(seed)
    short.blocks = nn.Sequential(*(PARTS[part](copy.deepcopy(blocks_of(model)[number])) for number in blocks))
    for layer in short.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02, generator=draw)
    return short.eval()


def with_zeros(model: onnx.ModelProto, piece: Piece, *, seed: int) -> onnx.ModelProto:
    """A copy of the graph with random zeros in the linear layers of its blocks."""
    changed, draw = onnx.ModelProto(), np.random.default_rng(seed)
    changed.CopyFrom(model)
    wanted = {f".{layer}.weight": sparsity for layer, sparsity in zip(LAYERS, piece.zeros, strict=True) if sparsity}
    for tensor in changed.graph.initializer:
        for ending, sparsity in wanted.items():
            if tensor.name.startswith("blocks.") and tensor.name.endswith(ending):
                weight_IO = numpy_helper.to_array(tensor).copy()
                weight_IO[~kept(weight_IO.shape, sparsity, piece.pattern, draw)] = 0
                tensor.CopyFrom(numpy_helper.from_array(weight_IO, tensor.name))
    return changed


def kept(shape: tuple[int, ...], sparsity: float, pattern: Pattern, draw: np.random.Generator) -> np.ndarray:
    """A random mask [inputs, outputs], True where a weight is kept; groups lie along the inputs.

    Raises:
        ModelError: The inputs are no whole number of groups.
    """
    inputs, outputs = shape
    if pattern != "unstructured" and inputs % _GROUP:
        raise ModelError(f"{inputs} inputs are no whole number of groups of {_GROUP}", "leave the pattern out")
    if pattern == "2:4":
        order = draw.random((inputs // _GROUP, _GROUP, outputs)).argsort(axis=1)
        return (order >= _GROUP // 2).reshape(shape)
    size = _GROUP if pattern == "block4" else 1
    mask = np.ones((inputs // size, 1, outputs), bool)
    mask.flat[draw.permutation(mask.size)[: round(sparsity * mask.size)]] = False
    return np.broadcast_to(mask, (inputs // size, size, outputs)).reshape(shape)


def rounded(model: nn.Module, image_shape: tuple[int, ...], *, scheme: str) -> nn.Module:
    """``model`` in INT8, in place; its ranges are those of random images: what a run takes does not depend on them."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(_CALIBRATION_IMAGES, *image_shape, generator=draw)
    insert(model, Quantization(scheme=NAMED[scheme]))
    with torch.no_grad():
        calibrate(model, [(images, torch.zeros(len(images), dtype=torch.int64))])
    freeze_observers(model)
    return fixed(model.eval())


class Mixed(nn.Module):
    """Attention without its products: the sum of queries, keys and values stands for what comes of them."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.qkv: nn.Module = attention.qkv
        self.proj: nn.Module = attention.proj

    def forward(self, x_BTD: Tensor, **_: object) -> Tensor:
        """Tokens to tokens."""
        q_BTD, k_BTD, v_BTD = self.qkv(x_BTD).chunk(3, dim=-1)
        return self.proj(q_BTD + k_BTD + v_BTD)


class Linears(nn.Module):
    """The four linear layers of a block, one after the other."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.attn, self.mlp = Mixed(block.attn), nn.ModuleDict({"fc1": block.mlp.fc1, "fc2": block.mlp.fc2})

    def forward(self, x_BTD: Tensor, **_: object) -> Tensor:
        """Tokens to tokens."""
        return self.mlp["fc2"](self.mlp["fc1"](self.attn(x_BTD)))


def _without_products(block: Any) -> nn.Module:
    block.attn = Mixed(block.attn)
    return block


def _halved(block: Any) -> nn.Module:
    first, second = block.mlp.fc1, block.mlp.fc2
    hidden = first.out_features // 2
    block.mlp.fc1 = nn.Linear(first.in_features, hidden, bias=first.bias is not None)
    block.mlp.fc2 = nn.Linear(hidden, second.out_features, bias=second.bias is not None)
    return block


def _is_linear(block: nn.Module, layer: str) -> bool:
    found: object = block
    for name in layer.split("."):
        found = getattr(found, name, None)
    return isinstance(found, nn.Linear)


PARTS: dict[Part, Callable[[nn.Module], nn.Module]] = {
    "all": lambda block: block,
    "without products": _without_products,
    "linears": Linears,
    "half MLP": _halved,
}
