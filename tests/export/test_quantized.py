"""INT8 graphs of a tiny ViT with zeros and attention products quantized: both forms, through the whole export."""

import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from ovit_deploy.errors import ExportError
from ovit_deploy.export import passes, verify
from ovit_deploy.export.card import Facts
from ovit_deploy.export.deployment import ExportReport, export
from ovit_deploy.export.post_training import quantized
from ovit_deploy.export.profile import load_profile
from ovit_deploy.export.to_onnx import frozen, to_onnx
from ovit_deploy.export.verify import check_parity
from ovit_deploy.export.zeros import count_zeros
from ovit_deploy.quantization import fixed
from ovit_deploy.recipe.quantization import Quantization

PRUNED = "blocks.0.mlp.fc1.weight"
FORMS = ("onnxruntime_int8", "deepsparse_int8", "tensorrt_int8")


@pytest.fixture(scope="module")
def int8(model: nn.Module, images: Tensor) -> nn.Module:
    return int8_for("onnxruntime_int8", model, images)


def int8_for(form: str, model: nn.Module, images: Tensor) -> nn.Module:
    """The model as the profile wants it, attention's products included."""
    wanted = load_profile(form).quantization or Quantization()
    wanted = wanted.model_copy(update={"attention_products": True})
    result, near = quantized(model, wanted, [(images, images)], images)
    assert near.num_layers == 12
    assert near.cosine > 0.98
    return result


@pytest.fixture(scope="module")
def exported(
    model: nn.Module, images: Tensor, masks: dict[str, Tensor], facts: Facts, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ExportReport]:
    """The export in each form, made once."""

    @cache
    def make(form: str) -> ExportReport:
        # Random weights answer near ties, in which a last bit decides: the thresholds of trained models are not theirs.
        return export(
            int8_for(form, model, images),
            images=images,
            masks=masks,
            profile=load_profile(form).model_copy(update={"min_agreement": 0.9}),
            facts=facts,
            recipe_text="modifiers: []\n",
            destination=tmp_path_factory.mktemp("run") / form,
        )

    return make


@pytest.fixture(params=FORMS)
def report(request: pytest.FixtureRequest, exported: Callable[[str], ExportReport]) -> ExportReport:
    return exported(request.param)


def test_the_file_is_the_quantized_model_and_a_fraction_of_its_size(
    report: ExportReport, masks: dict[str, Tensor]
) -> None:
    assert report.card["verification"]["cosine"] > 0.999
    graph = ir.load(report.file)
    weights = graph.graph.initializers
    assert all(weights[name].const_value.dtype == ir.DataType.INT8 for name in masks)
    assert all(count_zeros(graph)[name] >= int((~mask).sum()) for name, mask in masks.items())
    assert report.card["sparsity"]["prunable"] >= 0.74
    assert json.loads((report.folder / "model.json").read_text())["profile"]["precision"] == "int8"


def test_the_product_operators_are_those_of_the_form(report: ExportReport) -> None:
    kinds = Counter(node.op_type for node in onnx.load(report.file).graph.node)
    if report.folder.name == "deepsparse_int8":
        # Four products of layers and two of attention in each of two blocks, and the head.
        assert (kinds["MatMulInteger"], kinds["ConvInteger"], kinds["DequantizeLinear"], kinds["MatMul"]) == (
            13,
            1,
            0,
            0,
        )
    else:  # in TensorRT's form three more outputs a block: of qkv, proj and fc2; that of fc1 is what fc2 takes in
        outputs = 6 if report.folder.name == "tensorrt_int8" else 0
        assert (kinds["MatMul"], kinds["Conv"], kinds["DequantizeLinear"]) == (13, 1, 28 + outputs)


def test_integers_are_the_weights_over_their_scales(model: nn.Module, images: Tensor, report: ExportReport) -> None:
    model = fixed(frozen(int8_for(report.folder.name, model, images)))
    scale = model.get_submodule(PRUNED.replace("weight", "weight_quantizer")).scale
    integers = ir.load(report.file).graph.initializers[PRUNED].const_value.numpy()
    np.testing.assert_allclose(integers.T * scale.numpy()[:, None], model.get_parameter(PRUNED), atol=1e-6)


@pytest.mark.parametrize("bits", [4, 7])
def test_weights_of_fewer_bits_stay_within_their_integers(
    bits: int, model: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    scheme = {"weights": {"num_bits": bits, "symmetric": True, "strategy": "channel", "observer": "mse"}}
    result, _ = quantized(model, Quantization.model_validate({"scheme": scheme}), [(images, images)], images)
    graph = to_onnx(fixed(frozen(result)), images, profile=load_profile("onnxruntime_int8"))
    integers = graph.graph.initializers[PRUNED].const_value.numpy()
    assert -(2 ** (bits - 1)) <= integers.min() < 0 < integers.max() <= 2 ** (bits - 1) - 1


def test_a_file_that_answers_otherwise_is_refused(model: nn.Module, report: ExportReport, images: Tensor) -> None:
    profile = load_profile("onnxruntime_int8")
    with torch.inference_mode():
        logits = int8_for(report.folder.name, model, images)(images)
    with pytest.raises(ExportError, match="file and model agree on 0"):
        check_parity(report.file, images, -logits, 20, profile, level="ORT_ENABLE_ALL")
    with pytest.raises(ExportError, match="file and model have a cosine of"):
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
        lenient = profile.model_copy(update={"min_agreement": 0.0})
        check_parity(report.file, images, logits + logits.std() * noise, 20, lenient, level="ORT_ENABLE_ALL")


@pytest.mark.parametrize(("flags", "told"), [({"avx2"}, True), ({"avx2", "avx512_vnni"}, False), (set(), False)])
def test_a_processor_whose_products_saturate_is_told(
    flags: set[str],
    told: bool,
    exported: Callable[[str], ExportReport],
    images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "cpu_flags", lambda: frozenset(flags))
    profile = load_profile("onnxruntime_int8")
    with pytest.raises(ExportError) as error:
        file = exported("onnxruntime_int8").file
        check_parity(file, images[:4], -torch.ones(4, 10), 4, profile, level="ORT_ENABLE_ALL")
    assert ("take num_bits 7" in error.value.hint) == told


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_model_and_profile_must_have_one_precision(
    precision: str, model: nn.Module, int8: nn.Module, images: Tensor, facts: Facts, tmp_path: Path
) -> None:
    wrong, profile = (int8, "deepsparse") if precision == "float32" else (model, "deepsparse_int8")
    with pytest.raises(ExportError, match=f"profile {profile} is for"):
        export(
            wrong,
            images=images,
            masks={},
            profile=load_profile(profile),
            facts=facts,
            recipe_text="",
            destination=tmp_path / "deployment",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_pass_that_moves_a_zero_point_is_refused(
    exported: Callable[[str], ExportReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = ir.load(exported("onnxruntime_int8").file)

    def shift(model: ir.Model) -> ir.Model:
        weight = model.graph.initializers[PRUNED]
        integers = weight.const_value.numpy()
        weight.const_value = ir.tensor(np.where(integers == 0, np.int8(1), integers), name=PRUNED)
        return model

    monkeypatch.setitem(passes.PASSES, "shift", passes.Pass(shift))
    with pytest.raises(ExportError, match=f"pass shift changed the zeros of {PRUNED}"):
        passes.apply(graph, ["shift"])


def test_integer_products_need_folded_weights() -> None:
    float_weight, scale = (ir.val(n, const_value=ir.tensor(np.ones(1, np.float32))) for n in ("w", "s"))
    quantize = ir.node("QuantizeLinear", [float_weight, scale])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale])
    product = ir.node("MatMul", [x := ir.val("x"), dequantize.outputs[0]])
    steps, constants = [quantize, dequantize, product], [float_weight, scale]
    graph = ir.Graph([x], product.outputs, nodes=steps, initializers=constants, opset_imports={"": 20})
    with pytest.raises(ExportError, match="to_integer_products requires no weight that is quantized in the graph"):
        passes.apply(ir.Model(graph, ir_version=10), ["to_integer_products"])


def test_tensorrt_wants_symmetric_ranges(exported: Callable[[str], ExportReport]) -> None:
    graph = ir.load(exported("onnxruntime_int8").file)
    with pytest.raises(ExportError, match="require_symmetric_outputs ensures zero points of 0") as error:
        passes.apply(graph, ["require_symmetric_outputs"])
    assert "scheme tensorrt" in error.value.hint


@pytest.mark.parametrize("layer", ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"])
def test_each_sparse_product_without_a_rounded_output_is_found(
    layer: str, exported: Callable[[str], ExportReport]
) -> None:
    graph = ir.load(exported("tensorrt_int8").file)
    weight = graph.graph.initializers[f"blocks.1.{layer}.weight"]
    (dequantize,) = weight.consumers()
    (product,) = dequantize.outputs[0].consumers()
    quantize = next_of(product.outputs[0], "QuantizeLinear")
    (after,) = quantize.outputs[0].consumers()
    after.outputs[0].replace_all_uses_with(quantize.inputs[0])
    graph.graph.remove([after, quantize], safe=True)
    with pytest.raises(ExportError, match="ensures QuantizeLinear after each product of a sparse weight, but") as error:
        passes.apply(graph, ["require_symmetric_outputs"])
    assert product.name in error.value.message
    assert "tensorrt_sparse" in error.value.hint


def next_of(value: ir.Value, operator: str) -> ir.Node:
    """The first node of that operator down the only way from ``value``."""
    (node,) = value.consumers()
    return node if node.op_type == operator else next_of(node.outputs[0], operator)


def test_rounded_outputs_are_not_for_integer_products(exported: Callable[[str], ExportReport]) -> None:
    with pytest.raises(ExportError, match="requires DequantizeLinear before products of two quantized") as error:
        passes.apply(ir.load(exported("tensorrt_int8").file), ["to_integer_products"])
    assert "onnxruntime_int8" in error.value.hint


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_a_zero_is_an_integer_that_equals_the_zero_point_of_its_channel(kind: type) -> None:
    integers = np.array([[3, 5, 7], [3, 0, 7]], kind)
    points = ir.val("p", const_value=ir.tensor(np.array([3, 5, 0], kind)))
    weight = ir.val("w", shape=[2, 3], const_value=ir.tensor(integers, name="w"))
    scale = ir.val("s", const_value=ir.tensor(np.ones(3, np.float32)))
    node = ir.node("DequantizeLinear", [weight, scale, points], {"axis": 1})
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=[weight, scale, points], opset_imports={"": 20})
    assert count_zeros(ir.Model(graph, ir_version=10)) == {"w": 3}


def test_parity_is_checked_at_each_level_of_optimisation(
    int8: nn.Module, images: Tensor, exported: Callable[[str], ExportReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = load_profile("onnxruntime_int8").model_copy(update={"min_agreement": 0.9})
    seen, check = [], verify.check_parity

    def watched(*arguments: object, level: str) -> verify.Verification:
        seen.append(level)
        return check(*arguments, level=level)

    monkeypatch.setattr(verify, "check_parity", watched)
    verify.verify(exported("onnxruntime_int8").file, int8, images, masks={}, profile=profile)
    assert seen == list(verify.LEVELS)
    assert set(seen) <= set(ort.GraphOptimizationLevel.__members__)
