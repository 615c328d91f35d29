"""What the tests of the exporter share besides fixtures."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import timm
from torch import Tensor, nn


def tiny_vit() -> nn.Module:
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=28,
        patch_size=7,
        embed_dim=32,
        depth=2,
        num_heads=2,
        in_chans=1,
        num_classes=10,
    ).eval()


def copy_of(model: ir.Model) -> ir.Model:
    """One that a test may change."""
    return ir.from_proto(ir.to_proto(model))


def answers(model: ir.Model, images: Tensor) -> np.ndarray:
    """The logits of ONNX Runtime without graph optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return np.asarray(session.run(["logits"], {"images": images.numpy()})[0])
