"""The dense twin of a sparse graph: the same nodes and shapes, its zeros filled with random values.

An engine that skips zeros has none to skip in the twin, one that does not runs both alike. So the ratio of
the two on one engine is what the sparsity bought there, with the graph, the precision and the fusions held
equal.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from torch import Tensor

MIN_ZEROS = 0.1


def fill_zeros(model: onnx.ModelProto, *, seed: int) -> onnx.ModelProto:
    """A copy of ``model`` whose sparse weights have no zeros left; the other values stay as they are."""
    twin, draw = onnx.ModelProto(), np.random.default_rng(seed)
    twin.CopyFrom(model)
    for tensor in sparse_weights(twin):
        filled = numpy_helper.from_array(_filled(numpy_helper.to_array(tensor), draw), tensor.name)
        tensor.CopyFrom(filled)
    return twin


def fill_tensors(tensors: "Mapping[str, Tensor]", *, seed: int) -> "dict[str, Tensor]":
    """The same for a checkpoint's float tensors: a copy whose sparse weights have no zeros left."""
    import torch

    draw = np.random.default_rng(seed)
    return {
        name: torch.from_numpy(_filled(tensor.numpy(), draw)) if _is_sparse(tensor.numpy()) else tensor
        for name, tensor in tensors.items()
    }


def sparsity(model: onnx.ModelProto) -> float:
    """Fraction of zeros in the sparse weights taken together; 0 if there are none."""
    weights = [numpy_helper.to_array(tensor) for tensor in sparse_weights(model)]
    size = sum(weight.size for weight in weights)
    return 1 - sum(int(np.count_nonzero(weight)) for weight in weights) / size if size else 0.0


def sparse_weights(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The initializers of two or more dimensions in which more than a tenth is zero."""
    for tensor in model.graph.initializer:
        if _is_sparse(numpy_helper.to_array(tensor)):
            yield tensor


def _is_sparse(values: np.ndarray) -> bool:
    return values.ndim >= 2 and _zeros(values) > MIN_ZEROS


def _zeros(values: np.ndarray) -> float:
    return 1 - np.count_nonzero(values) / values.size if values.size else 0.0


def _filled(weight: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Normal values with the spread of the non-zeros; integers are drawn from the non-zeros themselves."""
    zero, others = weight == 0, weight[weight != 0]
    filled = weight.copy()
    if not others.size:
        filled[...] = 1
    elif np.issubdtype(weight.dtype, np.integer):
        filled[zero] = draw.choice(others, size=zero.sum())
    else:
        spread = others.astype(np.float64).std() or abs(float(others[0]))
        filled[zero] = draw.normal(scale=spread, size=zero.sum()).astype(weight.dtype)
        filled[filled == 0] = others[0]
    return filled
