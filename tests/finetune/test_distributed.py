"""Processes that share a run: what one process finds, whoever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ranks_to_start import LOST, SHARED, STOPPED, all_die, in_ranks, one_acts, one_dies, whole
from run_to_kill import NAME, go, in_a_process, sha256

from ovit_deploy.checkpoint import load_run, load_tensors
from ovit_deploy.cli import main, render
from ovit_deploy.finetune.run import Watchers

COMMAND = """
model: {name: vit_tiny_patch16_224, kwargs: {img_size: 28, patch_size: 14, embed_dim: 16, depth: 2, num_heads: 2}}
training: {batch_size: 100}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 0.2}
  - !OViTPruningModifier
    params: ["re:blocks.*(attn|mlp).*weight"]
    init_sparsity: 0.75
    final_sparsity: 0.75
    start_epoch: 0.1
    end_epoch: 0.1
    update_frequency: 0.1
    fisher_block_size: 16
    num_grads: 64
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """The run of a single process."""
    runs = tmp_path_factory.mktemp("one")
    assert in_a_process(whole, runs) == 0
    return runs


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """The run of two processes."""
    folder = tmp_path_factory.mktemp("two")
    assert in_ranks(2, folder, whole, folder / "runs") == [0, 0]
    return folder / "runs"


def check_same(runs: Path, expected: Path) -> None:
    """Equal masks, weights up to rounding, and records that differ in it only."""
    found, wanted = load_run(runs / NAME), load_run(expected / NAME)
    masks = wanted.masks()
    assert sum(int((~mask).sum()) for mask in masks.values()) > 0
    assert all(torch.equal(mask, masks[name]) for name, mask in found.masks().items())
    weights = load_tensors(wanted.weights)
    for name, weight in load_tensors(found.weights).items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-3, atol=1e-5)
    assert found.facts["final"]["images"] == wanted.facts["final"]["images"] == 16
    assert found.facts["final"]["loss"] == pytest.approx(wanted.facts["final"]["loss"], rel=1e-4)
    for line, other in zip(lines(runs), lines(expected), strict=True):
        assert (line["event"], line["epoch"]) == (other["event"], other["epoch"])
        key = "train_top1" if line["event"] == "epoch" else "predicted_loss_increase"
        assert line[key] == pytest.approx(other[key], rel=1e-3)


def lines(runs: Path) -> list[dict]:
    return [json.loads(line) for line in (runs / NAME / "metrics.jsonl").read_text().splitlines()]


def test_two_ranks_find_what_one_finds_and_one_of_them_writes(one, two) -> None:
    check_same(two, one)
    assert [path.name for path in two.iterdir()] == [NAME]
    assert load_run(two / NAME).facts["machine"]["processes"] == 2


@pytest.mark.slow
def test_four_ranks_find_what_one_finds(tmp_path, one) -> None:
    assert in_ranks(4, tmp_path, whole, tmp_path / "runs") == [0] * 4
    check_same(tmp_path / "runs", one)


def test_one_process_goes_on_where_two_were_and_says_what_that_changes(tmp_path, one) -> None:
    runs = tmp_path / "runs"
    assert in_ranks(2, tmp_path, one_dies, runs, 10, 1) == [LOST, -signal.SIGKILL]
    assert "another rank has ended" in (tmp_path / "lost-0").read_text()
    told: list[str] = []
    go(runs, SHARED, resume=True, watchers=Watchers(report=told.append))
    assert any(line.startswith("processes: 2, now 1: the last bits") for line in told)
    check_same(runs, one)


def test_the_others_end_when_the_first_rank_dies(tmp_path) -> None:
    assert in_ranks(2, tmp_path, one_dies, tmp_path / "runs", 3, 0) == [-signal.SIGKILL, LOST]


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_ranks_that_were_stopped_then_killed_go_on_to_the_same_weights(tmp_path, two) -> None:
    """A signal to any rank saves the run and ends all."""
    runs = tmp_path / "runs"
    assert in_ranks(2, tmp_path, one_acts, runs, 5, terminate, 1) == [STOPPED, STOPPED]
    told = (tmp_path / "stopped-0").read_text()
    assert "stopped by SIGTERM before step 5" in told
    assert f"torchrun --nproc-per-node 2 -m ovit_deploy prune --resume {NAME}" in told
    assert in_ranks(2, tmp_path, all_die, runs, 14) == [-signal.SIGKILL] * 2
    assert in_ranks(2, tmp_path, whole, runs, True) == [0, 0]
    assert load_run(runs / NAME).facts["resumed_at_steps"] == [5, 12]
    assert sha256(runs) == sha256(two)


def fall_silent() -> None:
    time.sleep(8)


@pytest.mark.slow
def test_a_rank_that_is_silent_is_waited_for_no_longer_than_said(tmp_path) -> None:
    codes = in_ranks(2, tmp_path, one_acts, tmp_path / "runs", 5, fall_silent, 1, patience=5)
    assert codes == [LOST, LOST]


@pytest.mark.parametrize("arguments", [["evaluate"], ["prune", "--recipe", "deit_75", "--sweep", "0.5"]])
def test_what_processes_cannot_share_is_refused(arguments, monkeypatch, capsys) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(render.out, "quiet", False)  # put back what a rank that is not the first sets
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert "error: rank 1: " in (told := capsys.readouterr().err)
    assert "start it without torchrun" in told


@pytest.mark.slow
def test_torchrun_prunes_and_tells_the_result_once(tmp_path) -> None:
    (tmp_path / "r.yaml").write_text(COMMAND)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ovit_deploy", "prune"]
    done = subprocess.run(
        [*command, "--recipe", "r.yaml", "--workers", "1", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["final"]["images"] == 2000
    assert facts["sparsity"]["prunable"] == pytest.approx(0.75, abs=1e-6)
    assert [str(path.relative_to(tmp_path)) for path in (tmp_path / "runs").iterdir()] == [facts["run"]]
    assert done.stderr.count("epoch 0.1: OViT to 75.00%") == 1
