import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ovit_deploy.errors import ExportError, RunError
from ovit_deploy.export.card import Facts, sparsities
from ovit_deploy.export.deployment import ExportReport, export
from ovit_deploy.export.profile import Profile

Export = Callable[..., ExportReport]
STEPS: list[str] = []  # that the export below told


@pytest.fixture
def export_it(model: nn.Module, images: Tensor, masks: dict[str, Tensor], profile: Profile, facts: Facts) -> Export:
    return partial(
        export, model, images=images, masks=masks, profile=profile, facts=facts, recipe_text="modifiers: []\n"
    )


@pytest.fixture(scope="module")
def report(
    model: nn.Module,
    images: Tensor,
    masks: dict[str, Tensor],
    profile: Profile,
    facts: Facts,
    tmp_path_factory: pytest.TempPathFactory,
) -> ExportReport:
    return export(
        model,
        images=images,
        masks=masks,
        profile=profile,
        facts=facts,
        recipe_text="modifiers: []\n",
        destination=tmp_path_factory.mktemp("run") / "deployment",
        progress=STEPS.append,
    )


def earlier_export(folder: Path) -> Path:
    earlier = folder / "deployment"
    earlier.mkdir()
    (earlier / "model.json").write_text("{}")
    return earlier


def interrupt_at(step: str) -> Callable[[str], None]:
    def progress(now: str) -> None:
        if now == step:
            raise KeyboardInterrupt

    return progress


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_what_is_promised_and_nothing_else(report: ExportReport) -> None:
    samples = [
        f"sample-{kind}/{short}-000{i}.npz" for kind, short in (("inputs", "inp"), ("outputs", "out")) for i in range(5)
    ]
    assert sorted(contents(report.folder)) == sorted(["model.json", "model.onnx", "recipe.yaml", *samples])
    assert list(report.folder.parent.iterdir()) == [report.folder]
    assert (report.folder / "recipe.yaml").read_text() == "modifiers: []\n"


def test_samples_are_images_with_the_logits_of_the_model(
    report: ExportReport, model: nn.Module, images: Tensor
) -> None:
    image = np.load(report.folder / "sample-inputs" / "inp-0003.npz")["images"]
    logits = np.load(report.folder / "sample-outputs" / "out-0003.npz")["logits"]
    np.testing.assert_array_equal(image, images[3])
    np.testing.assert_allclose(logits, model(torch.tensor(image)[None])[0].detach(), atol=1e-5)


def test_the_card_says_what_the_file_is(
    report: ExportReport, model: nn.Module, masks: dict[str, Tensor], profile: Profile
) -> None:
    card = json.loads((report.folder / "model.json").read_text())
    assert card == report.card
    assert card["format"] == 1
    assert card["model"] == {"name": "vit_tiny_patch16_224", "kwargs": {"depth": 2}}
    assert card["input"] == {"name": "images", "shape": [1, 28, 28], "batch": "batch", "dtype": "float32"}
    assert card["output"] == {"name": "logits", "shape": [10], "batch": "batch", "dtype": "float32"}
    assert card["classes"] == list("abcdefghij")
    assert card["preprocessing"]["mean"] == [0.3]
    assert card["run"] == {"seed": 0}
    assert card["profile"] == profile.model_dump(mode="json")
    assert card["verification"]["num_images"] == 40
    assert card["verification"]["top1_agreement"] == 1.0
    assert card["sha256"] == hashlib.sha256(report.file.read_bytes()).hexdigest()
    assert set(card["versions"]) == {"torch", "timm", "onnx", "onnxscript", "onnxruntime", "exporter"}
    assert report.size_bytes == report.file.stat().st_size


def test_the_card_counts_the_zeros_of_the_model(
    report: ExportReport, model: nn.Module, masks: dict[str, Tensor]
) -> None:
    sparsity = report.card["sparsity"]
    pruned = torch.cat([model.get_parameter(name).flatten() for name in masks])
    assert sparsity["prunable"] == pytest.approx(float((pruned == 0).float().mean()))
    assert set(sparsity["layers"]) == set(masks)
    for name, value in sparsity["layers"].items():
        assert value == pytest.approx(float((model.get_parameter(name) == 0).float().mean()))
    assert 0 < sparsity["all"] < sparsity["prunable"]


def test_steps_are_told_in_order(report: ExportReport) -> None:
    assert STEPS == ["tracing", "verifying", "writing"]


def test_a_failing_verification_leaves_the_previous_export(export_it: Export, tmp_path: Path, profile: Profile) -> None:
    previous = earlier_export(tmp_path)
    with pytest.raises(ExportError, match="logits differ"):
        export_it(destination=previous, profile=profile.model_copy(update={"tolerance": 0.0}))
    assert contents(tmp_path) == {"deployment/model.json": b"{}"}
    assert [path.name for path in tmp_path.iterdir()] == ["deployment"]


@pytest.mark.parametrize("when", ["tracing", "verifying", "writing"])
def test_an_interrupt_leaves_the_previous_export(when: str, export_it: Export, tmp_path: Path) -> None:
    previous = earlier_export(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        export_it(destination=previous, progress=interrupt_at(when))
    assert contents(tmp_path) == {"deployment/model.json": b"{}"}
    assert [path.name for path in tmp_path.iterdir()] == ["deployment"]


def test_a_first_export_that_is_interrupted_leaves_nothing(export_it: Export, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        export_it(destination=tmp_path / "deployment", progress=interrupt_at("tracing"))
    assert not list(tmp_path.iterdir())


def test_a_new_export_replaces_all_of_the_old(export_it: Export, tmp_path: Path) -> None:
    old = earlier_export(tmp_path)
    (old / "left over").write_text("")
    export_it(destination=old)
    assert json.loads((old / "model.json").read_text())["format"] == 1
    assert not (old / "left over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["deployment"]


def test_a_folder_that_is_no_export_is_never_replaced(export_it: Export, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is not an export"):
        export_it(destination=tmp_path)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_place_that_cannot_be_written_is_refused_with_a_remedy(export_it: Export, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written") as error:
        export_it(destination=tmp_path / "file" / "deployment")
    assert "--output" in error.value.hint


def test_a_dense_model_has_no_sparse_layers(report: ExportReport) -> None:
    found = sparsities(report.file, {})
    assert found["prunable"] == 0.0
    assert found["layers"] == {}
