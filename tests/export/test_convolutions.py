"""What convolutional networks need of the exporter: batch norms, pooling, and DeepSparse's fast runtime."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ovit_deploy.engines import ENGINES, environments
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.errors import ExportError
from ovit_deploy.export import passes
from ovit_deploy.export.card import Facts
from ovit_deploy.export.deployment import ExportReport, export
from ovit_deploy.export.post_training import quantized
from ovit_deploy.export.profile import load_profile
from ovit_deploy.recipe.quantization import Quantization

PRUNED = "layer1.0.conv2.weight"  # its batch norm begins with weights of 0
STATISTICS = ("weight", "bias", "mean", "variance")


def resnet(*, trained: bool = True) -> tuple[nn.Module, dict[str, Tensor]]:
    """timm's smallest, every third weight of a convolution pruned; batch norms as after training, or before it."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and trained:
            nn.init.uniform_(module.weight, -1.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.get_buffer("running_mean"))
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    weight = model.get_parameter(PRUNED)
    mask = (torch.arange(weight.numel()) % 3 > 0).view_as(weight)
    with torch.no_grad():
        weight.mul_(mask)
    return model, {PRUNED: mask}


def exported(folder: Path, form: str, *, trained: bool = True) -> tuple[ExportReport, Tensor]:
    """The network in a form, and its images."""
    (model, masks), images = resnet(trained=trained), torch.randn(8, 3, 32, 32)
    profile = load_profile(form)
    if profile.precision == "int8":
        model, _ = quantized(model, Quantization(), [(images, images)], images)
        profile = profile.model_copy(update={"min_agreement": 0.5})  # random weights answer near ties
    facts, run = Facts("test_resnet", {}, ()), folder / form
    return export(
        model, images=images, masks=masks, profile=profile, facts=facts, recipe_text="", destination=run
    ), images


@pytest.fixture(scope="module", params=["deepsparse", "deepsparse_int8"])
def fast(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, Tensor]:
    """The network in DeepSparse's form, and its images."""
    return exported(tmp_path_factory.mktemp("run"), request.param)


def test_deepsparse_gets_neither_batch_norms_nor_means_over_pixels(fast: tuple[ExportReport, Tensor]) -> None:
    found = Counter(node.op_type for node in onnx.load(fast[0].file).graph.node)
    assert not found.keys() & {"BatchNormalization", "ReduceMean"}
    assert found["GlobalAveragePool"] == 1
    assert found["ConvInteger"] + found["Conv"] == 15


def test_a_network_that_is_not_trained_yet_keeps_its_zeros(tmp_path: Path) -> None:
    """Folded into the convolution before it, a batch norm whose weights are 0 would make all of its weights 0."""
    report, _ = exported(tmp_path, "deepsparse", trained=False)
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(report.file).graph.initializer}
    assert (stored[PRUNED] == 0).mean() == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.skipif(
    not environments.is_complete(environments.location("deepsparse"), ENGINES["deepsparse"].pins),
    reason="DeepSparse is not installed; ovit-deploy bench --engine deepsparse installs it",
)
def test_deepsparse_takes_all_of_a_resnet_into_its_fast_runtime(
    fast: tuple[ExportReport, Tensor], tmp_path: Path
) -> None:
    report, images = fast
    given, answers = tmp_path / "images.npy", tmp_path / "logits.npy"
    np.save(given, images.numpy())
    with EngineProcess("deepsparse", environments.prepare("deepsparse", print), timeout_s=120) as process:
        about = process.load(report.file, given, batch_size=1, threads=1).about
        process.infer(given, answers)
    assert about["supported_operators"] == 1
    session = ort.InferenceSession(report.file)
    wanted = np.asarray(session.run(None, {"images": images.numpy()})[0])
    np.testing.assert_allclose(np.load(answers), wanted, rtol=0, atol=0.05 * np.abs(wanted).max())


def graph_of(nodes: Sequence[onnx.NodeProto], shape: Sequence[int], **constants: np.ndarray) -> ir.Model:
    """logits = nodes(images); every shape is known."""
    value = helper.make_tensor_value_info
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    ends = [value("images", TensorProto.FLOAT, shape)], [value("logits", TensorProto.FLOAT, None)]
    graph = helper.make_graph(list(nodes), "graph", *ends, stored)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


def run(model: ir.Model, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return np.asarray(session.run(None, {"images": images})[0])


@pytest.mark.parametrize("shape", [(2, 5), (2, 5, 3), (2, 5, 3, 4)])
@pytest.mark.parametrize("uses", [0, 1, 2])
def test_a_batch_norm_is_a_factor_and_a_summand_for_each_channel(shape: tuple[int, ...], uses: int) -> None:
    """Alone, after a product with a constant that only it reads, and after one that something else reads, too."""
    draw = np.random.default_rng(len(shape))
    about = {name: draw.uniform(0.5, 2, 5).astype(np.float32) for name in STATISTICS}
    about["weight"][:2] = 0, -1
    scale = draw.uniform(0.5, 2, [1, 5] + [1] * (len(shape) - 2)).astype(np.float32)
    norm = helper.make_node("BatchNormalization", ["scaled" if uses else "images", *STATISTICS], ["norm"], epsilon=0.1)
    before = [helper.make_node("Mul", ["images", "scale"], ["scaled"])] if uses else []
    end = helper.make_node("Add", ["norm", "scaled"], ["logits"])
    if uses < 2:
        norm.output[0] = "logits"
    model = graph_of([*before, norm, *([end] if uses == 2 else [])], shape, scale=scale, **about)

    images = draw.standard_normal(shape).astype(np.float32)
    x = torch.from_numpy(images).double() * (torch.from_numpy(scale).double() if uses else 1)
    mean, variance, weight, bias = (
        torch.from_numpy(about[key]).double() for key in ("mean", "variance", "weight", "bias")
    )
    wanted = nn.functional.batch_norm(x, mean, variance, weight, bias, eps=0.1) + (x if uses == 2 else 0)
    folded = passes.apply(model, ["fold_batch_norm"])
    np.testing.assert_allclose(run(folded, images), wanted.numpy(), rtol=0, atol=1e-5)
    assert Counter(node.op_type for node in folded.graph)["Mul"] == max(1, uses)


def test_a_batch_norm_whose_statistics_are_computed_is_refused() -> None:
    nodes = [
        helper.make_node("Neg", ["mean"], ["computed"]),
        helper.make_node("BatchNormalization", ["images", "weight", "bias", "computed", "variance"], ["logits"]),
    ]
    model = graph_of(nodes, (1, 5), **{name: np.ones(5, np.float32) for name in STATISTICS})
    with pytest.raises(ExportError, match="fold_batch_norm requires BatchNormalization of constants"):
        passes.apply(model, ["fold_batch_norm"])


@pytest.mark.parametrize(
    ("axes", "keepdims", "pools"), [((2, 3), 1, 1), ((-1, -2), 0, 1), ((1, 2), 1, 0), ((3,), 0, 0)]
)
def test_only_means_over_height_and_width_become_pooling(axes: tuple[int, ...], keepdims: int, pools: int) -> None:
    node = helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=keepdims)
    model = graph_of([node], (2, 3, 4, 5), axes=np.array(axes))
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    pooled = passes.apply(model, ["mean_to_pool"])
    wanted = images.mean(tuple(axes), keepdims=bool(keepdims), dtype=np.float64)
    np.testing.assert_allclose(run(pooled, images), wanted, rtol=0, atol=1e-6)
    assert Counter(one.op_type for one in pooled.graph)["GlobalAveragePool"] == pools


@pytest.mark.parametrize(
    ("operator", "given"), [("HardSigmoid", {}), ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}), ("HardSwish", {})]
)
def test_hard_gates_are_clips_and_products(operator: str, given: dict[str, float]) -> None:
    model = graph_of([helper.make_node(operator, ["images"], ["logits"], **given)], (2, 1001))
    images = np.linspace(-8, 8, 2002, dtype=np.float32).reshape(2, 1001)
    slope = given.get("alpha", 1 / 6 if operator == "HardSwish" else 0.2)
    gate = (slope * images.astype(np.float64) + 0.5).clip(0, 1)
    spelt = passes.apply(model, ["decompose_hard_gates"])
    np.testing.assert_allclose(
        run(spelt, images), gate * images if operator == "HardSwish" else gate, rtol=0, atol=1e-6
    )
    assert {node.op_type for node in spelt.graph} == {"Add", "Clip", "Mul"}


@pytest.mark.parametrize(("scale", "reads"), [([], 1), ([1], 1), ([1, 1, 1, 1, 1], 1), ([3, 1, 1], 1), ([], 2)])
def test_one_number_goes_from_the_product_of_an_attention_to_its_queries(scale: list[int], reads: int) -> None:
    """Not one for each head, not where it would add an axis, and not where another reads the product as it is."""
    images = np.random.default_rng(0).standard_normal((2, 3, 5, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["images"], ["keys"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["images", "keys"], ["product"]),
        helper.make_node("Mul", ["product", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["weights"]),
        helper.make_node("Add", ["weights", "product" if reads == 2 else "weights"], ["logits"]),
    ]
    before = graph_of(nodes, images.shape, scale=np.full(scale, 0.25, dtype=np.float32))
    wanted = run(before, images)
    after = passes.apply(before, ["scale_queries"])
    np.testing.assert_allclose(run(after, images), wanted, rtol=0, atol=1e-5)
    (mul,) = [node for node in after.graph if node.op_type == "Mul"]
    assert (mul.inputs[0].name == "images") == (np.prod(scale) == 1 and len(scale) <= 2 and reads == 1)


@pytest.mark.parametrize("operator", ["HardSigmoid", "HardSwish"])
def test_a_convolution_before_a_hard_gate_has_a_bias(operator: str) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    weight = np.random.default_rng(1).standard_normal((5, 3, 1, 1)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["images", "w"], ["x"]), helper.make_node(operator, ["x"], ["logits"])]
    before = graph_of(nodes, images.shape, w=weight)
    wanted = run(before, images)
    after = passes.apply(before, ["decompose_hard_gates"])
    np.testing.assert_allclose(run(after, images), wanted, rtol=0, atol=1e-6)
    (convolution,) = [node for node in after.graph if node.op_type == "Conv"]
    assert convolution.inputs[2].const_value.numpy().tolist() == [0] * 5
