"""Graphs that this package exports, against ONNX Runtime on the same file; and files that are none."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ovit_deploy.bench import evidence
from ovit_deploy.engines import environments
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.engines.sparse import Engine
from ovit_deploy.engines.sparse.build import library
from ovit_deploy.engines.sparse.recognize import recognize
from ovit_deploy.errors import EngineError
from ovit_deploy.export.profile import load_profile
from ovit_deploy.export.to_onnx import to_onnx
from ovit_deploy.quantization import calibrate, insert
from ovit_deploy.quantization.fake_quant import fixed
from ovit_deploy.recipe.quantization import Quantization

pytestmark = pytest.mark.skipif(
    not library("portable").is_file(), reason="the sparse engine is not compiled: no C++ compiler when it was installed"
)
SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
KINDS = {  # timm's name, its settings, export profile, quantization
    "vit": ("vit_tiny_patch16_224", {}, "deepsparse", None),
    "average": ("vit_tiny_patch16_224", {"global_pool": "avg"}, "onnxruntime", None),
    "distilled": ("deit_tiny_distilled_patch16_224", {}, "onnxruntime", None),
    "registers": ("vit_small_patch14_reg4_dinov2", {"init_values": 0.1}, "openvino", None),
    "norm first": ("vit_base_patch16_clip_224", {}, "deepsparse", None),
    "int8": ("vit_tiny_patch16_224", {}, "onnxruntime_int8", Quantization()),
    "int8 attention": ("vit_tiny_patch16_224", {}, "onnxruntime_int8", Quantization(attention_products=True)),
}
IMAGES = np.random.default_rng(0).standard_normal((5, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports by kind, each made once; half of the weights are zero."""
    made: dict[str, Path] = {}

    def export(kind: str) -> Path:
        if kind not in made:
            name, changes, profile, quantization = KINDS[kind]
            torch.manual_seed(0)
            model = timm.create_model(name, **SMALL | changes).eval()
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.data *= torch.rand_like(parameter) < 0.5
            if quantization is not None:
                insert(model, quantization)
                calibrate(model, [(torch.from_numpy(IMAGES), torch.zeros(5))])
                model = fixed(model)
            made[kind] = tmp_path_factory.mktemp("exports") / "model.onnx"
            ir.save(to_onnx(model, torch.from_numpy(IMAGES[:2]), profile=load_profile(profile)), made[kind])
        return made[kind]

    return export


def by_onnxruntime(path: Path) -> np.ndarray:
    """As the operators are defined: unfused."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options).run(None, {"images": IMAGES})[0]


@pytest.mark.parametrize(
    "kind",
    [
        "vit",
        "int8 attention",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("average", "distilled", "registers", "norm first", "int8")
        ),
    ],
)
def test_an_export_gives_onnxruntimes_logits(exported, kind):
    wanted = by_onnxruntime(exported(kind))
    for form in ("dense", "sparse"):
        found = Engine(exported(kind), form=form).run(IMAGES)
        off_by = np.abs(found - wanted).max(axis=1) / np.abs(wanted).max()
        assert np.median(off_by) <= 1e-4
        # A number between two integers may be rounded to the other one: a step of a scale, in an image or two.
        assert off_by.max() <= (1e-2 if "int8" in kind else 1e-4)


def test_the_engine_runs_in_a_process_of_its_own_and_tells_what_ran(exported, tmp_path):
    np.save(tmp_path / "images.npy", np.concatenate([IMAGES, IMAGES[:1]]))
    with EngineProcess("ovit", environments.prepare("ovit", print), timeout_s=60) as process:
        about = process.load(exported("vit"), tmp_path / "images.npy", batch_size=2, threads=2).about
        process.infer(tmp_path / "images.npy", tmp_path / "logits.npy")
        layers = process.profile(2)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy")[:5], by_onnxruntime(exported("vit")), atol=1e-5)
    assert about["layers"]["head"]["precision"] == "float32"
    found = evidence.split(layers, evidence.pruned_names([onnx.load(exported("vit"))]))
    assert found.kernels and found.pruned_ms > 0
    assert all(0 < share < 1 for share in found.of_peak.values())
    assert "Attention float32" in found.of_peak
    assert set(about["layers"]) >= {"patch_embed", "blocks.0.attn.qkv", "blocks.1.mlp.fc2", "head"}


def changed(path: Path, to: Path, change) -> Path:
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, to)
    return to


@pytest.mark.parametrize(
    ("operator", "other"),
    [("Softmax", "LogSoftmax"), ("Erf", "Tanh"), ("Sqrt", "Exp"), ("Conv", "ConvTranspose"), ("Gather", "Relu")],
)
def test_a_graph_with_another_operator_is_refused_by_its_name(exported, tmp_path, operator, other):
    def change(graph):
        node = next(node for node in graph.node if node.op_type == operator)
        node.op_type = other
        if other == "Relu":
            node.ClearField("attribute")
            del node.input[1:]

    path = changed(exported("vit"), tmp_path / "other.onnx", change)
    with pytest.raises(EngineError, match="not the graph of an isotropic vision transformer"):
        recognize(str(path))


def test_a_convolutional_network_is_refused(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, images):
            return self.conv(images).mean((2, 3))

    ir.save(to_onnx(Net(), torch.zeros(2, 3, 16, 16), profile=load_profile("onnxruntime")), tmp_path / "conv.onnx")
    with pytest.raises(EngineError, match="Conv .*a convolution of square patches without overlap"):
        Engine(tmp_path / "conv.onnx")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_and_lying_shapes_are_errors_or_answers_but_never_crash(exported, tmp_path, data):
    whole = exported("int8 attention").read_bytes()
    path = tmp_path / "damaged.onnx"
    kind = data.draw(st.sampled_from(["cut", "flip", "shape", "size"]))
    if kind == "cut":
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    elif kind == "flip":
        damaged = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4))):
            damaged[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(damaged)
    else:
        model = onnx.load_from_string(whole)
        tensor = data.draw(st.sampled_from(list(model.graph.initializer)))
        if kind == "shape" and len(tensor.dims) > 1:
            tensor.dims.reverse()
        elif len(tensor.dims):
            tensor.dims[0] = data.draw(st.sampled_from([0, 1, 2**31, 2**62]))
        path.write_bytes(model.SerializeToString())
    try:
        logits = Engine(path).run(IMAGES)
    except EngineError:
        return
    assert logits.shape[0] == len(IMAGES)
