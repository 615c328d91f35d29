import json
from pathlib import Path

import pytest

from ovit_deploy.bench import noise
from ovit_deploy.cli import main


def run(*arguments: str) -> int | str | None:
    """The exit code of ``ovit-deploy bench``."""
    with pytest.raises(SystemExit) as left:
        main(["bench", *arguments])
    return left.value.code


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_tables_name_the_dense_twin_and_the_json_file(save, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", str(save()), "--iterations", "4") == 0
    shown = capsys.readouterr().out
    assert "dense twin: the same graph with its zeros filled" in shown
    assert "wrote bench.json" in shown
    assert len(json.loads(Path("bench.json").read_text())["rows"]) == 2


def test_a_model_with_random_weights_is_measured_in_integers_too(capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", "test_vit", "--sparsity", "0.75", "--pattern", "block4")
    flags = (*model, "--batch-size", "1", "--iterations", "2")
    assert run("--suite", "int8_latency", *flags, "--engine", "onnxruntime", "--engine", "openvino") == 0
    shown = capsys.readouterr().out
    assert "times as fast as others in these turns" in shown
    assert "fastest dense: " in shown
    rows = json.loads(Path("bench.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"test_vit with random weights (zeros in fours, INT8)"}
    assert [row["agreement"]["top1"] for row in rows if row["agreement"]] == [1.0] * 4
    without = [(row["engine"], row["weights"]) for row in rows if not row["vs_float"]]
    assert without == [("onnxruntime", "dense float32")]


def test_json_goes_to_stdout_alone(save, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", str(save()), "--iterations", "2", "--json", "--output", "out/b.json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("out/b.json").read_text())


def test_the_result_of_an_export_goes_to_its_run(save, capsys: pytest.CaptureFixture[str]) -> None:
    deployment = Path("runs/mine/deployment")
    deployment.mkdir(parents=True)
    save().rename(deployment / "model.onnx")
    (deployment / "model.json").write_text("{}")
    assert run("--run", "mine", "--iterations", "1") == 0
    assert Path("runs/mine/bench.json").is_file()


def test_a_failed_engine_exits_with_1_after_the_others_were_told(save, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("--engine", "deepsparse", "--engine", "onnxruntime")
    assert run("--model", str(save(ir_version=10)), *both, "--iterations", "2") == 1
    shown = capsys.readouterr()
    assert "failed" in shown.out
    assert "images/s" in shown.out
    assert "deepsparse reads ONNX up to IR version 9" in shown.err
    assert len(json.loads(Path("bench.json").read_text())["rows"]) == 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "none.onnx"], "none.onnx: no such file"),
        ([], "no exports here"),
        (["--model", "none.onnx", "--run", "mine"], "two things to measure"),
        (["--model", "none.onnx", "--sparsity", "0.5"], "--sparsity: an .onnx file has its own"),
        (["--model", "none.onnx", "--precision", "int8"], "--precision: an .onnx file has its own"),
        (["--model", "deit_smal"], "timm knows no such model"),
        (["--model", "none.onnx", "--threads", "4096"], "usable cores"),
        (["--suite", "cpu_latncy"], "did you mean cpu_latency?"),
        (["--model", "none.onnx", "--engine", "onnx"], "no engine 'onnx', there are onnxruntime, openvino"),
        (["--model", "none.onnx", "--engine", "openvino:precision=f16"], "precision must be f32 or bf16"),
    ],
)
def test_a_mistake_is_an_error_with_a_remedy(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 1
    shown = capsys.readouterr().err
    assert expected in shown
    assert "hint:" in shown


def test_the_pruner_suite_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.yaml").write_text("kind: pruner\nblocks: 4\nblock_size: 16\nrepeats: 2\n")
    assert run("--suite", "small.yaml") == 0
    assert "batched torch" in capsys.readouterr().out
    assert json.loads(Path("pruner.json").read_text())["summary"]["same_order"] > 0.99


STEP = """
block_size: 32
step:
  model: vit_tiny_patch16_224
  model_kwargs: {img_size: 16, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2, num_classes: 10}
  num_grads: 20
  damping: 1.0e-4
  threads: 1
"""


@pytest.mark.slow
def test_the_whole_pruning_step_is_measured_against_its_plain_form(capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.yaml").write_text(f"kind: pruner\nblocks: 4\nrepeats: 2{STEP}")
    assert run("--suite", "small.yaml") == 0
    assert "the whole pruning step" in capsys.readouterr().out
    step = json.loads(Path("pruner.json").read_text())["step"]
    assert step["summary"]["same_fate"] > 0.99
    assert [row["outcome"]["num_layers"] for row in step["rows"]] == [8, 8]


@pytest.mark.slow
def test_a_memory_budget_that_does_not_hold_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("small.yaml").write_text(f"kind: pruner_memory\nbudgets_gb: [0.0005, 1]{STEP}")
    assert run("--suite", "small.yaml") == 1
    shown = capsys.readouterr()
    assert "budget GB" in shown.out
    assert "the budgets of 0.0005 GB did not hold" in shown.err


def test_a_noisy_machine_is_exit_code_3_unless_that_is_allowed(
    save, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OVIT_DEPLOY_ALLOW_NOISE")
    monkeypatch.setattr(noise, "MAX_BUSY", -1.0)  # a limit that every machine is over
    assert run("--model", str(save()), "--iterations", "1") == 3
    assert "--allow-noise" in capsys.readouterr().err
    assert not Path("bench.json").exists()
    assert run("--model", str(save()), "--iterations", "1", "--allow-noise") == 0
    assert json.loads(Path("bench.json").read_text())["noise"]["busy"] >= 0


def test_noise_while_measuring_is_exit_code_3_after_the_result_was_written(
    save, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OVIT_DEPLOY_ALLOW_NOISE")
    monkeypatch.setattr(noise, "MAX_BUSY", 1.0)
    monkeypatch.setattr(noise, "MAX_STOLEN", -1.0)
    assert run("--model", str(save()), "--iterations", "1") == 3
    shown = capsys.readouterr()
    assert "the hypervisor took" in shown.err
    assert "images/s" in shown.out
    assert json.loads(Path("bench.json").read_text())["noise"]["reasons"]


def test_evidence_is_shown_and_written(save, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", str(save()), "--iterations", "2", "--evidence") == 0
    assert "at most" in capsys.readouterr().out
    assert json.loads(Path("bench.json").read_text())["rows"][0]["evidence"]["layers"]


def test_a_calibration_tells_its_verdicts(save, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--model", str(save()), "--iterations", "6", "--calibrate", "--runs", "2") == 0
    assert "would be found 19 times in 20" in capsys.readouterr().out
    assert len(json.loads(Path("calibration.json").read_text())["same"]) == 2


def test_an_engines_own_tool_is_compared_and_written_with_the_model(save) -> None:
    arguments = ("--duration", "0.1", "--own-tool", "--allow-noise", "--output", "own.json")
    assert run("--model", str(save()), *arguments) == 0
    told = json.loads(Path("own.json").read_text())
    assert told["kind"] == "own_tool"
    assert told["model"].endswith("model.onnx")
    assert [one["error"] for one in told["comparisons"]] == [""]
