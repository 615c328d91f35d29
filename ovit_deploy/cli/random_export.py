"""A model with random weights as ONNX, in the forms that engines run fast."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir
import timm
import torch

from ovit_deploy.export.post_training import quantize
from ovit_deploy.export.profile import load_profile
from ovit_deploy.export.to_onnx import frozen, to_onnx
from ovit_deploy.quantization import fixed
from ovit_deploy.recipe.quantization import NAMED, Quantization

if TYPE_CHECKING:
    from torch import nn

    from ovit_deploy.bench.suite import Precision

# One scale a weight tensor, which DeepSparse runs faster and the others as fast.
INTEGERS = Quantization(scheme=NAMED["deepsparse"], attention_products=True)


def export(model: nn.Module, path: Path, precision: Precision) -> Mapping[str, Path]:
    """Write a model to ``path``, in integers also in the form that DeepSparse needs; returns that, by engine."""
    size = timm.data.resolve_model_data_config(model)["input_size"]
    if precision == "float32":
        _save(model, size, "deepsparse", path)
        return {}
    images = torch.randn(8, *size, generator=torch.Generator().manual_seed(0))
    integers, _ = quantize(model.eval(), INTEGERS, [(images, torch.zeros(8))])
    integers = fixed(frozen(integers))
    _save(integers, size, "onnxruntime_int8", path)
    products = path.with_stem(f"{path.stem}_products")
    _save(integers, size, "deepsparse_int8", products)
    return {"deepsparse": products}


def _save(model: nn.Module, size: tuple[int, ...], profile: str, path: Path) -> None:
    onnx_ir.save(to_onnx(model, torch.zeros(1, *size), profile=load_profile(profile)), path)
