"""What users type, typed: each command in a process of its own, in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from ovit_deploy import checkpoint, models

BLOCKS = r"re:blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2))\.weight"
SHORT = f"""
training: {{batch_size: 64, augmentation: {{crop_padding: 2}}}}
modifiers:
  - !EpochRangeModifier {{start_epoch: 0, end_epoch: 0.1}}
  - !OViTPruningModifier
    params: ['{BLOCKS}']
    init_sparsity: 0.75
    final_sparsity: 0.75
    start_epoch: 0
    end_epoch: 0
    update_frequency: 1
    num_grads: 256
  - !DistillationModifier {{start_epoch: 0}}
"""


def ovit(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ovit_deploy", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"},
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def refused(*arguments: str, cwd: Path) -> str:
    """The error of a command that must fail as a user's mistake does: exit 1, no traceback."""
    done = ovit(*arguments, cwd=cwd, check=False)
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert any(line.startswith("error: ") for line in done.stderr.splitlines())
    return done.stderr


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder in which the main job was done, on the embedded model and images, shortened to a tenth of an epoch."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "short.yaml").write_text(SHORT)
    ovit("prune", "--recipe", "short.yaml", "--name", "first", cwd=folder)
    ovit("export", "--onnx", cwd=folder)
    return folder


def test_prune_leaves_a_run_of_exactly_the_asked_sparsity(workplace) -> None:
    facts = json.loads((workplace / "runs/first/run.json").read_text())
    assert facts["sparsity"]["prunable"] == pytest.approx(0.75, abs=1e-6)
    assert facts["dense"]["top1"] > 0.88
    assert facts["final"]["top1"] > 0.7


def test_export_leaves_a_deployment_whose_card_agrees_with_the_run(workplace) -> None:
    deployment = workplace / "runs/first/deployment"
    card = json.loads((deployment / "model.json").read_text())
    assert card["sparsity"]["prunable"] == pytest.approx(0.75, abs=1e-6)
    assert card["input"]["shape"] == [1, 28, 28]
    assert len(card["classes"]) == 10
    names = {path.name for path in deployment.iterdir()}
    assert names >= {"model.onnx", "model.json", "recipe.yaml", "sample-inputs", "sample-outputs"}


def test_bench_times_the_newest_export(workplace) -> None:
    done = ovit("bench", "--engine", "onnxruntime", "--iterations", "20", "--json", cwd=workplace)
    told = json.loads(done.stdout)
    assert "onnxruntime" in json.dumps(told)


def test_report_shows_the_newest_run_on_one_page(workplace) -> None:
    assert "wrote runs/first/report.html" in ovit("report", cwd=workplace).stdout
    root = ElementTree.parse(workplace / "runs/first/report.html").getroot()
    shown = " ".join(root.itertext())
    facts = json.loads((workplace / "runs/first/run.json").read_text())
    assert f"{100 * facts['final']['top1']:.2f}" in shown
    assert "ovit-deploy prune --recipe short.yaml --name first" in shown
    assert "ovit-deploy export --onnx --run first --profile deepsparse" in shown
    (training,) = [figure for figure in root.iter("figure") if "training as it went" in "".join(figure.itertext())]
    assert "training loss" in "".join(training.itertext())


def test_evaluate_measures_the_newest_run(workplace) -> None:
    told = json.loads(ovit("evaluate", "--json", cwd=workplace).stdout)
    facts = json.loads((workplace / "runs/first/run.json").read_text())
    assert (told["correct"], told["images"]) == (facts["final"]["correct"], 2000)


def test_a_dry_run_prints_the_timeline_and_the_layers_without_torch(tmp_path) -> None:
    code = "import sys; from ovit_deploy.cli import app; app(sys.argv[1:], result_action='return_value')"
    code += "; assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, "prune", "--recipe", "recipes/deit_75.yaml", "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "OViTPruning to 75.00% of 16 tensors" in done.stdout
    assert "blocks.*.attn.qkv.weight" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_images_and_model_go_all_the_way(tmp_path) -> None:
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("val", 10)):
        for number, name in enumerate(("dark", "light")):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 100, (20, 20, 3), dtype=np.uint8) + np.uint8(120 * number)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{index}.png")
    model = "{img_size: 16, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2}"
    (tmp_path / "dense.yaml").write_text(
        f"model: {{name: vit_tiny_patch16_224, kwargs: {model}}}\ntraining: {{batch_size: 16, learning_rate: 1e-3}}\n"
        "modifiers:\n  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}\n"
    )
    (tmp_path / "sparse.yaml").write_text(SHORT.replace("256", "64").replace("batch_size: 64", "batch_size: 16"))
    ovit("train", "--recipe", "dense.yaml", "--data", "images", "--name", "dense", cwd=tmp_path)
    weights = "runs/dense/model.safetensors"
    ovit("prune", "--recipe", "sparse.yaml", "--checkpoint", weights, "--data", "images", "--name", "s", cwd=tmp_path)
    ovit("export", "--onnx", "--run", "s", cwd=tmp_path)
    card = json.loads((tmp_path / "runs/s/deployment/model.json").read_text())
    assert card["classes"] == ["dark", "light"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--recipe", "deit_57"], "did you mean deit_75?"),
        (["--recipe", "deit_75", "--model", "deit_tiny_patch16_225"], "timm knows no such model"),
        (["--recipe", "deit_75", "--checkpoint", "none.safetensors"], "no such checkpoint"),
        (["--recipe", "deit_75", "--checkpoint", "broken.safetensors"], "not a whole safetensors file"),
        (["--recipe", "deit_75", "--data", "./nowhere"], "no such folder or file"),
        (["--recipe", "deit_75", "--data", "broken.npz"], "not a data set of this form"),
        (["--recipe", "deit_75", "--model", "resnet10t"], "matches no parameter"),
        (["--recipe", "deit_75", "--memory-budget", "lots"], "for example 6GB"),
        (["--recipe", "demo_dense"], "prunes nothing"),
        (["--recipe", "impossible.yaml"], "less than 1"),
        (["--recipe", "deit_75", "--checkpoint", "two.safetensors"], "tells 2 classes apart, the data have 10"),
        (["--recipe", "deit_75", "--checkpoint", "nan.safetensors"], "nan"),
        (["--recipe", "deit_75", "--model", "deit_tiny_patch16_224", "--pretrained"], "pretrained weights are not in"),
    ],
)
def test_a_mistake_is_told_in_a_line_and_nothing_is_left_behind(tmp_path, arguments, told) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    (tmp_path / "broken.npz").write_bytes(b"not an archive")
    (tmp_path / "impossible.yaml").write_text(SHORT.replace("final_sparsity: 0.75", "final_sparsity: 1.5"))
    if "two.safetensors" in arguments:
        spec = models.ModelSpec("vit_tiny_patch16_224", {"img_size": 28, "num_classes": 2, "embed_dim": 24, "depth": 1})
        checkpoint.save_tensors(tmp_path / "two.safetensors", models.build(models.Choice(spec)).state_dict(), spec)
    if "nan.safetensors" in arguments:
        weights = checkpoint.load_tensors(models.EMBEDDED)
        weights["head.bias"] = torch.full_like(weights["head.bias"], torch.nan)
        spec = checkpoint.read_header(models.EMBEDDED).spec
        checkpoint.save_tensors(tmp_path / "nan.safetensors", weights, spec)
    before = sorted(tmp_path.iterdir())
    assert told in refused("prune", *arguments, cwd=tmp_path)
    assert [p for p in sorted(tmp_path.iterdir()) if p.name != "runs"] == before
    assert not list((tmp_path / "runs").glob("*")) if (tmp_path / "runs").exists() else True


@pytest.mark.parametrize("verb", ["export", "bench", "evaluate"])
def test_with_no_run_a_verb_says_how_to_make_one(tmp_path, verb) -> None:
    assert "ovit-deploy " in refused(verb, cwd=tmp_path)


def test_wrong_usage_exits_with_2(tmp_path) -> None:
    assert ovit("prune", "--recipe", "deit_75", "--no-such-option", cwd=tmp_path, check=False).returncode == 2


def test_an_output_that_cannot_be_written_is_told(tmp_path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    (tmp_path / "short.yaml").write_text(SHORT)
    assert "cannot be written" in refused("prune", "--recipe", "short.yaml", cwd=tmp_path)
