"""PyTorch -> ONNX, in the form that a profile describes."""

import copy

import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, ShapeInferencePass
from torch import nn

from ovit_deploy.errors import ExportError
from ovit_deploy.export.passes import apply
from ovit_deploy.export.profile import Profile

INPUT, OUTPUT = "images", "logits"


def to_onnx(model: nn.Module, images: torch.Tensor, *, profile: Profile) -> ir.Model:
    """The model as an ONNX graph from ``images`` to ``logits``, its weights under their PyTorch names.

    The model is traced by ``torch.export`` (a copy, on the CPU, in evaluation mode), translated operator by
    operator and then rewritten by the passes of the profile, each checked.

    Args:
        model: from images (N x C x H x W) to logits (N x classes).
        images: at least one, to trace with; only their shape and type matter.
        profile: from ``load_profile``.

    Raises:
        ExportError: the model cannot be traced, or a pass does not fit its graph.
    """
    model = frozen(model)
    if profile.attention == "plain":
        _use_plain_attention(model)
    traced = _traced(model, images.detach().cpu(), profile)
    traced.ir_version = profile.ir_version
    return _finished(apply(traced, profile.passes))


def frozen(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, without gradients; zeros lose the sign that masks have left (-0.0)."""
    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0)
    return model


def _use_plain_attention(model: nn.Module) -> None:
    """timm's blocks hold both forms of attention and a flag that chooses one; transformers' networks are told."""
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")  # type: ignore[operator]
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # pyrefly: ignore[bad-argument-type]


def _traced(model: nn.Module, images: torch.Tensor, profile: Profile) -> ir.Model:
    """The graph as the exporter writes it, unoptimized: its own optimizer would rename the weights."""
    num_images = 2 if profile.batch == "dynamic" else profile.batch  # a batch of one is taken for a constant
    repeats = -(-num_images // len(images))
    example = images.repeat(repeats, 1, 1, 1)[:num_images].contiguous()
    try:
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},) if profile.batch == "dynamic" else None,
            opset_version=profile.opset,
            optimize=False,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise ExportError(f"the model cannot be traced: {reason}", "export a timm VisionTransformer") from error
    assert program is not None
    return program.model


def _finished(model: ir.Model) -> ir.Model:
    """With the shape of every value and without the exporter's stack traces, which name local folders."""
    return Sequential(ClearMetadataAndDocStringPass(), ShapeInferencePass())(model).model
