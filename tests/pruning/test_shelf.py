"""Prunings that are cut off and begun again: the same answer, down to the bit, without doing all of it again."""

import json
from dataclasses import replace

import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_vit

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import MFAC, FastOViT, GradientWeight, OViT, shelf
from ovit_deploy.pruning.shelf import Shelf

METHODS = {
    "one group": OViT(32, 40, damping=1e-4, memory_budget=2**26, damping_kind="robust"),
    "several groups": OViT(32, 40, damping=1e-4, memory_budget=250_000, refine=True),
    "FastOViT": FastOViT(32, 40),
    "MFAC": MFAC(32, 40, damping=1e-4, memory_budget=2**26),
    "GradientWeight": GradientWeight(40),
}


class CutOffError(Exception):
    """The process dies."""


class Stream:
    """Batches of calibration images that end the work after so many of them."""

    def __init__(self, left: float = float("inf")) -> None:
        self.plain = tiny_calibration(40, 8)
        self.left = left
        self.used = 0

    def batches(self):
        for batch in self.plain.batches():
            if self.left == 0:
                raise CutOffError
            self.left -= 1
            yield batch

    def on(self, folder):
        return replace(self.plain, batches=self.batches, shelf=Shelf(folder).of("this pruning"))


@pytest.fixture(autouse=True)
def _every_batch(monkeypatch) -> None:
    monkeypatch.setattr(shelf, "SECONDS_BETWEEN", 0.0)


def prune(method, calibration):
    model = tiny_vit()
    reports: list[str] = []
    masks = full_masks(model, ["blocks.0.mlp.fc1.weight", "blocks.1.attn.qkv.weight"])
    found = METHODS[method].prune(model, masks, sparsity=0.6, calibration=calibration, report=reports.append)
    return found, reports


@pytest.mark.parametrize(
    ("method", "batches"),
    [*((name, 4) for name in METHODS), ("several groups", 9), ("several groups", 24), ("several groups", 1000)],
)
def test_a_pruning_that_was_cut_off_comes_to_the_same_answer(tmp_path, method, batches) -> None:
    whole, _ = prune(method, tiny_calibration(40, 8))
    groups = whole.details.get("groups", 1)
    assert (groups > 2) == (method == "several groups")
    left = min(batches, 1 + 5 * 2 * groups - 2)  # one batch checks the gradients, and five are a pass
    with pytest.raises(CutOffError):
        prune(method, Stream(left).on(tmp_path))
    again, reports = prune(method, Stream().on(tmp_path))
    passes = sum("gradients of" in line for line in reports)
    assert passes == (2 * groups if groups > 1 else 1) - (left - 1) // 5
    for name, weight in whole.weights.items():
        assert torch.equal(again.weights[name], weight)
        assert torch.equal(again.masks[name], whole.masks[name])
    assert again.predicted_loss == whole.predicted_loss


def test_batches_that_are_in_the_sums_are_not_taken_again(tmp_path, monkeypatch) -> None:
    from ovit_deploy.pruning import fisher

    seen, real = [], fisher.batch_gradients
    monkeypatch.setattr(fisher, "batch_gradients", lambda *given: (seen.append(given[5]), real(*given))[1])
    with pytest.raises(CutOffError):
        prune("one group", Stream(4).on(tmp_path))
    assert seen == [0, 8, 16]
    prune("one group", Stream().on(tmp_path))
    assert seen == [0, 8, 16, 24, 32]


def test_what_another_pruning_left_is_not_taken_up(tmp_path) -> None:
    kept, total = Shelf(tmp_path).of("one"), torch.ones(3)
    kept.put("pass", {"sum": total}, {"batches": 2})
    assert kept.of("another").get("pass", {"sum": total}) is None
    assert kept.get("pass", {"sum": torch.zeros(4)}) is None
    assert kept.get("pass", {"another": total}) is None
    assert kept.get("eliminated", {"sum": total}) is None
    found = torch.zeros(3)
    assert kept.get("pass", {"sum": found}) == {"batches": 2}
    assert torch.equal(found, total)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_part_that_was_not_written_to_its_end_leaves_the_one_before(tmp_path, monkeypatch, number) -> None:
    kept = Shelf(tmp_path).of("one")
    parts = {"a": torch.zeros(2), "b": torch.zeros(2)}
    kept.put("pass", parts, {"batches": 1})
    called, real = 0, shelf.os.fsync

    def failing(descriptor: int) -> None:
        nonlocal called
        called += 1
        if called == number + 1:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(shelf.os, "fsync", failing)
    with pytest.raises(OSError, match="No space"):
        kept.put("pass", {name: tensor + 5 for name, tensor in parts.items()}, {"batches": 2})
    assert kept.get("pass", parts) == {"batches": 1}
    assert not parts["b"].any()
    kept.put("pass", {name: tensor + 5 for name, tensor in parts.items()}, {"batches": 2})
    assert kept.get("pass", parts) == {"batches": 2}
    assert (parts["b"] == 5).all()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_part_is_named(tmp_path) -> None:
    kept = Shelf(tmp_path).of("one")
    kept.put("pass", {"sum": torch.zeros(99)}, {})
    (part,) = tmp_path.iterdir()
    (part / "0.npy").write_bytes((part / "0.npy").read_bytes()[:150])
    with pytest.raises(PruningError, match=r"pass\.0: damaged"):
        kept.get("pass", {"sum": torch.zeros(99)})
    assert json.loads((part / "facts.json").read_text())["identity"] == "one"
    kept.clear()
    assert not tmp_path.exists()
