import copy
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from export_cases import answers
from torch import Tensor, nn

from ovit_deploy.errors import ExportError
from ovit_deploy.export.profile import Profile, load_profile
from ovit_deploy.export.to_onnx import to_onnx


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_file_answers_as_the_model_at_any_batch_size(
    batch_size: int, model: nn.Module, images: Tensor, fast_file: Path
) -> None:
    session = ort.InferenceSession(fast_file)
    found = session.run(["logits"], {"images": images[:batch_size].numpy()})[0]
    np.testing.assert_allclose(found, model(images[:batch_size]).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_other_profiles_answer_as_the_model(name: str, model: nn.Module, images: Tensor) -> None:
    profile = load_profile(name)
    graph = to_onnx(model, images, profile=profile)
    np.testing.assert_allclose(answers(graph, images), model(images).detach(), rtol=0, atol=1e-5)
    assert (graph.opset_imports[""], graph.ir_version) == (profile.opset, profile.ir_version)


def test_the_deepsparse_form_has_plain_operators_only(fast: ir.Model) -> None:
    found = {node.op_type for node in fast.graph}
    assert not found & {"LayerNormalization", "Gelu", "Gemm", "Constant", "Identity"}
    assert {"ReduceMean", "Erf", "MatMul"} <= found


def test_input_output_and_versions_are_as_promised(fast_file: Path, profile: Profile) -> None:
    proto = onnx.load(fast_file)
    (image,), (logits,) = proto.graph.input, proto.graph.output
    assert (image.name, logits.name) == ("images", "logits")
    assert [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim] == ["batch", 1, 28, 28]
    assert [dim.dim_param or dim.dim_value for dim in logits.type.tensor_type.shape.dim] == ["batch", 10]
    assert (proto.ir_version, proto.opset_import[0].version) == (profile.ir_version, profile.opset)


def test_the_file_holds_no_traces_of_this_machine(fast_file: Path) -> None:
    assert b".py" not in fast_file.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in fast_file.read_bytes()


def test_weights_have_the_names_of_the_model(model: nn.Module, fast: ir.Model) -> None:
    assert {name for name, weight in model.named_parameters() if weight.ndim > 1} <= set(fast.graph.initializers)


def test_a_fixed_batch_is_in_the_graph(model: nn.Module, images: Tensor, profile: Profile) -> None:
    graph = to_onnx(model, images, profile=profile.model_copy(update={"batch": 1}))
    assert graph.graph.inputs[0].shape == (1, 1, 28, 28)
    assert not any(node.op_type in ("Shape", "Expand") for node in graph.graph)
    np.testing.assert_allclose(answers(graph, images[:1]), model(images[:1]).detach(), rtol=0, atol=1e-5)


def test_the_model_stays_as_it_was(model: nn.Module, images: Tensor, profile: Profile) -> None:
    model.train()
    try:
        to_onnx(model, images, profile=profile)
        assert model.training
        assert all(weight.requires_grad for weight in model.parameters())
        assert all(block.attn.fused_attn for block in model.blocks)
    finally:
        model.eval()


def test_exporting_prints_nothing(
    model: nn.Module, images: Tensor, profile: Profile, capfd: pytest.CaptureFixture[str]
) -> None:
    to_onnx(model, images, profile=profile)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_cannot_be_traced_is_refused(images: Tensor, profile: Profile) -> None:
    class Branching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) if images.sum() > 0 else images.flatten(1) * torch.tensor(2.0)

    with pytest.raises(ExportError, match="cannot be traced"):
        to_onnx(Branching(), images, profile=profile)


def test_zeros_that_a_mask_left_with_a_sign_lose_it(model: nn.Module, images: Tensor, profile: Profile) -> None:
    masked = copy.deepcopy(model)
    weight = masked.get_parameter("blocks.0.mlp.fc1.weight")
    with torch.no_grad():
        weight.mul_(weight.new_zeros(()))
    assert bool(weight.signbit().any())
    found = to_onnx(masked, images, profile=profile).graph.initializers["blocks.0.mlp.fc1.weight"].const_value
    assert found is not None
    assert not np.signbit(found.numpy()).any()
