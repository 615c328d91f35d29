"""What can be known of engines for NVIDIA GPUs without one: that they refuse, what they build, what they read."""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from ovit_deploy.bench.latency import Settings, measure_latency
from ovit_deploy.bench.source import Source
from ovit_deploy.bench.subject import prepare
from ovit_deploy.engines import ENGINES, cuda, environments, inventory, plan
from ovit_deploy.engines.process import BOOTSTRAP, PACKAGE
from ovit_deploy.engines.pytorch_cuda import candidates, is_2of4
from ovit_deploy.errors import EngineError

without_gpu = pytest.mark.skipif(not cuda.refusal(), reason="there is a GPU")
RTX = ENGINES["tensorrt_rtx"]
with_rtx = pytest.mark.skipif(
    not environments.is_complete(environments.location("tensorrt_rtx"), RTX.pins),
    reason="TensorRT for RTX is not installed; ovit-deploy engines install tensorrt_rtx",
)
BUILD = """
import json, sys
import tensorrt_rtx_bindings as trt
from ovit_deploy.engines import plan
from ovit_deploy.errors import EngineError
log = plan.logger(trt)
try:
    built = plan.build(trt, log, sys.argv[2], json.loads(sys.argv[3]), sparse=True, tf32=False)
    print(json.dumps({"bytes": built.nbytes, "lines": len(log.lines), "told": plan.sparsity_told(log.lines)}))
except EngineError as error:
    print(json.dumps({"error": error.message}))
"""


def test_a_machine_without_the_driver_is_refused_in_words() -> None:
    assert cuda.refusal("libnone.so.1") == "needs an NVIDIA GPU: no driver is here (libnone.so.1)"


@without_gpu
@pytest.mark.parametrize("engine", ["pytorch_cuda", "tensorrt", "tensorrt_rtx"])
def test_without_a_gpu_nothing_is_installed_or_started(engine: str) -> None:
    assert inventory.status(engine).refusal.startswith("needs an NVIDIA GPU")
    with pytest.raises(EngineError, match=f"{engine} needs an NVIDIA GPU"):
        environments.prepare(engine, pytest.fail)


@without_gpu
def test_an_engine_without_its_gpu_costs_its_own_rows(product: Path, tmp_path: Path) -> None:
    subject = prepare(Source("product", (product,)), batch_size=2, seed=0, folder=tmp_path)
    rows = measure_latency(subject, Settings(("tensorrt", "onnxruntime"), iterations=2, timeout_s=60))
    assert all("tensorrt needs an NVIDIA GPU" in row.error for row in rows if row.engine == "tensorrt" and row.error)
    assert all(row.error for row in rows if row.engine == "tensorrt")
    assert all(row.latency for row in rows if row.engine == "onnxruntime")


def graph(*, operator: str) -> onnx.ModelProto:
    """Images [N, 3, 8, 8] through a product with a 2:4 weight, and an operator."""
    weight_IO = np.random.default_rng(0).standard_normal((192, 64)).astype(np.float32)
    weight_IO.reshape(48, 4, 64)[:, :2] = 0
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["product"], name="layer"),
        helper.make_node(operator, ["product"], ["logits"], name="last"),
    ]
    images, logits = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", 3, 8, 8]), ("logits", None))
    )
    made = helper.make_graph(nodes, "graph", [images], [logits], [numpy_helper.from_array(weight_IO, "weight")])
    return helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def built(path: Path) -> dict:
    """What TensorRT for RTX makes of a file, in its own environment and without a GPU."""
    python = environments.install("tensorrt_rtx", print)
    script = BOOTSTRAP.replace("from ovit_deploy.engines.worker import main\nmain()", BUILD)
    arguments = [*python.command, "-c", script, str(PACKAGE), str(path), "[2, 3, 8, 8]"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


@with_rtx
def test_tensorrt_builds_a_plan_of_a_file_without_a_gpu(tmp_path: Path) -> None:
    onnx.save(graph(operator="Relu"), tmp_path / "model.onnx")
    found = built(tmp_path / "model.onnx")
    assert found["bytes"] > 192 * 64
    assert found["lines"] > 0
    assert found["told"] == {"found": None, "chose": None}  # that library tells nothing of sparsity


@with_rtx
def test_a_file_that_tensorrt_does_not_read_is_an_error_that_names_the_node(tmp_path: Path) -> None:
    onnx.save(graph(operator="Unheard"), tmp_path / "model.onnx")
    assert "last" in built(tmp_path / "model.onnx")["error"]
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    assert "TensorRT does not read the file" in built(tmp_path / "model.onnx")["error"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["(Sparsity) Found 196 layer(s) eligible ...", "(Sparsity) Chose 140 layer(s) ..."],
            (196, 140),
        ),
        (
            [
                "Layers eligible for sparse math: fc1, fc2, fc3",
                "TRT inference plan picked sparse implementation for layers: fc2",
            ],
            (3, 1),
        ),
        (["(Sparsity) Found 0 layer(s) eligible"], (0, None)),
        (["Engine generation completed"], (None, None)),
    ],
)
def test_the_builders_log_tells_how_many_layers_could_and_do_run_sparse(lines: list[str], expected: tuple) -> None:
    assert tuple(plan.sparsity_told(lines).values()) == expected


def test_kernels_come_from_the_inspector_and_sparse_ones_are_known_by_name() -> None:
    half = [{"Format/Datatype": "Row major linear FP16 format"}]
    told = {
        "Layers": [
            {
                "Name": "__myl_Gemm_1",
                "LayerType": "gemm",
                "TacticName": "sm80_xmma_sparse_gemm_f16f16_tn",
                "Outputs": half,
                "Metadata": "[ONNX Layer: fc1/MatMul]\u001e[ONNX Layer: fc1/Add]",
            },
            {"Name": "a + b", "LayerType": "gemm", "TacticName": "sm80_xmma_gemm_f16f16_tn", "Outputs": half},
        ]
    }
    sparse, dense = plan.layers(json.dumps(told))
    assert (sparse["names"], sparse["precision"]) == (["fc1/MatMul", "fc1/Add"], "sparse")
    assert (dense["names"], dense["precision"], dense["kernel"]) == (["a", "b"], "FP16", "sm80_xmma_gemm_f16f16_tn")
    with pytest.raises(EngineError, match="no kernels"):
        plan.layers(json.dumps({"Layers": ["__myl_Gemm_1"]}))


def test_layers_for_2of4_kernels_have_the_pattern_and_the_size() -> None:
    network = nn.ModuleDict({name: nn.Linear(64, 64) for name in ("dense", "right", "shifted")})
    network["narrow"] = nn.Linear(64, 10)
    with torch.no_grad():
        for name in ("right", "narrow"):
            network[name].weight.view(-1, 4)[:, ::2] = 0
        network["shifted"].weight[:, 2:62].view(64, -1, 4)[..., :2] = 0
        network["shifted"].weight[:, :2] = 1
    assert list(candidates(network)) == ["right"]
    assert not is_2of4(network["dense"].weight)
