"""The shipped INT8 recipes, a few steps of each, through to every INT8 form: as a user types it."""

import json
from pathlib import Path

import pytest
from test_main_job import ovit, refused

SHORT = {
    "deit_2of4_int8": ("num_epochs=0.4,quantize=0.2,num_grads=128", 0.5, ("tensorrt_int8", "onnxruntime_int8")),
    "deit_block4_90_int8": (
        "num_epochs=0.16,quantize=0.12,pruned_by=0.08,num_grads=64",
        0.9,
        ("deepsparse_int8", "onnxruntime_int8"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SHORT)
def test_a_recipe_ends_in_files_that_engines_answer_with(recipe: str, tmp_path: Path) -> None:
    arguments, sparsity, forms = SHORT[recipe]
    ovit("prune", "--recipe", recipe, "--recipe-arg", arguments, "--name", "r", cwd=tmp_path)
    top1 = json.loads((tmp_path / "runs/r/run.json").read_text())["final"]["top1"]
    for form in forms:
        ovit("export", "--onnx", "--profile", form, "--output", form, cwd=tmp_path)
        card = json.loads((tmp_path / form / "model.json").read_text())
        assert card["sparsity"]["prunable"] >= sparsity - 1e-3
        assert card["verification"]["top1_agreement"] >= 0.995
        told = ovit("evaluate", "--model", f"{form}/model.onnx", "--engine", "onnxruntime", "--json", cwd=tmp_path)
        assert abs(json.loads(told.stdout)["engines"]["onnxruntime"]["top1"] - top1) <= 0.005
    other = ({"tensorrt_int8", "deepsparse_int8"} - set(forms)).pop()
    assert "scheme" in refused("export", "--onnx", "--profile", other, "--output", "other", cwd=tmp_path)
