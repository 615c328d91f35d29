import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ovit_deploy import checkpoint, working_folder
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.cli import main

KWARGS = {
    "img_size": 28,
    "patch_size": 7,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "in_chans": 1,
    "num_classes": 10,
}


def make_run(name: str, model: nn.Module, masks: dict[str, Tensor], *, data_source: str | None) -> Path:
    spec = ModelSpec("vit_tiny_patch16_224", KWARGS, (0.286,), (0.353,), tuple("abcdefghij"))
    with working_folder.new_run(name) as folder:
        checkpoint.save_tensors(folder / "model.safetensors", model.state_dict(), spec)
        checkpoint.save_tensors(folder / "masks.safetensors", {n: m.to(torch.uint8) for n, m in masks.items()})
        checkpoint.write(folder / "recipe.yaml", "modifiers: []\n")
        checkpoint.write(folder / "run.json", json.dumps({"data_source": data_source, "seed": 7}))
    return checkpoint.RUNS / name


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: nn.Module, masks: dict[str, Tensor]) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_run("first", model, masks, data_source=None)


def code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["export", *arguments])
    return int(exit_.value.code or 0)


def test_the_newest_run_is_exported_and_the_next_command_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code("--onnx", "--num-images", "20") == 0
    shown = capsys.readouterr()
    assert "wrote runs/first/deployment" in shown.out
    assert "74.98%" in shown.out
    assert "100%" in shown.out
    assert "next: ovit-deploy bench --engine deepsparse" in shown.out
    assert "first: verifying" in shown.err
    card = json.loads((run / "deployment" / "model.json").read_text())
    assert card["classes"] == list("abcdefghij")
    assert card["run"] == {"name": "first", "seed": 7}
    assert card["preprocessing"]["mean"] == [0.286]
    assert card["verification"]["num_images"] == 20
    assert (run / "deployment" / "recipe.yaml").read_text() == (run / "recipe.yaml").read_text()


def test_json_goes_to_stdout_alone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code("--json", "--num-images", "2", "--run", "first", "--output", "elsewhere") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "elsewhere" / "model.json").read_text())
    assert not (run / "deployment").exists()


def test_without_a_run_the_command_that_makes_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert code() == 1
    assert "ovit-deploy prune --recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--profile", "deepspars"), "did you mean deepsparse?"),
        (("--run", "second"), "runs/second: not a complete run"),
        (("--data", "missing/"), "missing/"),
    ],
)
def test_a_mistake_is_one_line_with_a_remedy(
    arguments: tuple[str, ...], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code(*arguments) == 1
    shown = capsys.readouterr()
    assert message in shown.err
    assert not shown.out


def test_the_images_are_those_of_the_run(
    run: Path, model: nn.Module, masks: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("second", model, masks, data_source="/moved/flowers")
    assert code("--run", "second") == 1
    shown = capsys.readouterr()
    assert "/moved/flowers" in shown.err
    assert "--data" in shown.err


@pytest.mark.parametrize("arguments", [("--num-images", "0"), ("--no-onnx",), ("--profil", "x")])
def test_wrong_usage_is_two(arguments: tuple[str, ...], run: Path) -> None:
    assert code(*arguments) == 2


@pytest.mark.parametrize("flags", [("--smooth", "0.5"), ("--max-drop", "1")])
def test_options_of_quantization_need_it(flags: tuple[str, str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(*flags) == 1
    assert f"{flags[0]} without --quantize" in capsys.readouterr().err


def test_a_float_run_is_quantized_on_the_way_and_keeps_its_zeros(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lenient = (Path(__file__).parents[2] / "export" / "deepsparse_int8.yaml").read_text().replace("0.995", "0.5")
    lenient += "quantization: {ignore: [head], strict: true}\n"
    (tmp_path / "lenient.yaml").write_text(lenient)  # the model is random: near ties decide its classes
    flags = ("--quantize", "int8", "--smooth", "0.5", "--max-drop", "90", "--compress")
    assert code("--onnx", *flags, "--num-images", "20", "--profile", "lenient.yaml") == 0
    shown = capsys.readouterr()
    assert "4 LayerNorms smoothed" in shown.err
    assert "all layers can be quantized" in shown.err
    assert "9 layers quantized with 512 training images" in shown.err
    assert "model.onnx.packed: " in shown.out
    card = json.loads((run / "deployment" / "model.json").read_text())
    told = card["run"]["post_training"]
    assert (told["num_layers"], told["smooth"], told["quantization"]["ignore"]) == (9, 0.5, ["head"])
    assert told["mixed_precision"]["num_images"] == 1024
    assert card["sparsity"]["prunable"] >= 0.7498
    assert (run / "deployment" / card["packed"]["file"]).stat().st_size == card["packed"]["bytes"]
