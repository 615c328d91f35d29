"""What DeepSparse dies on, or refuses, and the forms that it takes instead: all in one small network."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

from ovit_deploy.engines import ENGINES, environments
from ovit_deploy.engines.process import EngineProcess
from ovit_deploy.export.card import Facts
from ovit_deploy.export.deployment import ExportReport, export
from ovit_deploy.export.post_training import quantized
from ovit_deploy.export.profile import load_profile
from ovit_deploy.recipe.quantization import Quantization

WIDTH = 16
IN_FLOAT = {"groups.weight", "reduce.weight", "expand.weight", "of_tokens.weight"}


class Hybrid(nn.Module):
    """Groups of four, squeeze-and-excitation, attention that scales its product, tokens laid out as pixels, a table of
    positions, a norm of one token."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.Hardswish()
        )
        self.groups = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.bottleneck = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))
        self.reduce, self.expand = nn.Conv2d(WIDTH, 8, 1), nn.Conv2d(8, WIDTH, 1)
        self.tokens, self.positions = nn.Linear(WIDTH, WIDTH), nn.Linear(2, WIDTH)
        self.keys = nn.Linear(WIDTH, WIDTH)
        self.of_tokens = nn.Conv2d(WIDTH, WIDTH, 2, stride=2)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)
        self.register_buffer("coordinates", torch.rand(64, 2))
        nn.init.zeros_(self.bottleneck[1].weight[:2])  # as timm begins the last batch norm of a block

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images [N, 3, 16, 16]."""
        x = torch.relu(self.groups(self.stem(x)))
        x = self.bottleneck(torch.relu(self.depthwise(x)))
        x = x * nn.functional.hardsigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))
        x = self.tokens(x.flatten(2).transpose(1, 2)) + self.positions(self.coordinates)
        q, k = (one.unflatten(2, (1, -1)).transpose(1, 2) for one in (x, self.keys(x)))
        x = x + ((q @ k.transpose(2, 3) * 0.25).softmax(-1) @ q).transpose(1, 2).flatten(2)
        x = self.of_tokens(x.transpose(1, 2).reshape(-1, WIDTH, 8, 8)).flatten(2).transpose(1, 2)
        return self.head(self.norm(x[:, 1:2])).flatten(1)


@pytest.fixture(scope="module", params=["deepsparse", "deepsparse_int8"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, Tensor]:
    """The network in DeepSparse's form, two thirds of the weights of its layers zero, and its images."""
    torch.manual_seed(0)
    model, images, masks = Hybrid().eval(), torch.randn(8, 3, 16, 16), {}
    for name in ("bottleneck.0.weight", "tokens.weight", *IN_FLOAT):
        weight = model.get_parameter(name)
        masks[name] = torch.rand_like(weight) > 2 / 3
        weight.data.mul_(masks[name])
    profile = load_profile(request.param)
    if profile.precision == "int8":
        model, _ = quantized(model, Quantization(), [(images, images)], images)
        profile = profile.model_copy(update={"min_agreement": 0.5})  # random weights answer near ties
    folder = tmp_path_factory.mktemp("run") / "deployment"
    facts = Facts("hybrid", {}, ())
    return export(
        model, images=images, masks=masks, profile=profile, facts=facts, recipe_text="", destination=folder
    ), images


@pytest.mark.parametrize("exported", ["deepsparse_int8"], indirect=True)
def test_products_that_deepsparse_has_in_float_only_keep_float_weights(exported: tuple[ExportReport, Tensor]) -> None:
    kinds = {one.name: one.data_type for one in onnx.load(exported[0].file).graph.initializer}
    floats = {name for name, kind in kinds.items() if name.endswith(".weight") and kind == TensorProto.FLOAT}
    assert floats - {"norm.weight"} == IN_FLOAT
    integers = {name for name, kind in kinds.items() if name.endswith(".weight") and kind == TensorProto.INT8}
    named = "stem.0", "depthwise", "bottleneck.0", "tokens", "keys", "positions", "head"
    assert integers == {f"{name}.weight" for name in named}


@pytest.mark.skipif(
    not environments.is_complete(environments.location("deepsparse"), ENGINES["deepsparse"].pins),
    reason="DeepSparse is not installed; ovit-deploy bench --engine deepsparse installs it",
)
def test_deepsparse_runs_the_network(exported: tuple[ExportReport, Tensor], tmp_path: Path) -> None:
    report, images = exported
    given, logits = tmp_path / "images.npy", tmp_path / "logits.npy"
    np.save(given, images.numpy())
    with EngineProcess("deepsparse", environments.prepare("deepsparse", print), timeout_s=120) as process:
        process.load(report.file, given, batch_size=1, threads=1)
        process.infer(given, logits)
    wanted = np.stack([np.load(file)["logits"] for file in sorted((report.folder / "sample-outputs").iterdir())])
    np.testing.assert_allclose(np.load(logits)[: len(wanted)], wanted, rtol=0, atol=0.02 * np.abs(wanted).max())
