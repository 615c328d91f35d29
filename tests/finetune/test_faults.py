"""Runs on bad files, with too little memory, on disks that fail, and with Fisher matrices that are not finite."""

import copy
import errno
import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import tiny_vit
from failing_disk import Disk
from PIL import Image
from run_to_kill import NAME, RECIPES, SPEC, go, in_a_process, sha256
from torch import nn
from training_cases import random_images, trained, weights_of

from ovit_deploy.data import load_data
from ovit_deploy.errors import DataError, NotFiniteError, RunError, TrainingError
from ovit_deploy.finetune.actions import State
from ovit_deploy.finetune.losses import Objective
from ovit_deploy.finetune.run import Watchers, run
from ovit_deploy.models import Choice
from ovit_deploy.pruning.fisher import Span, check_finite
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.schema import Training

# ---------------------------------------------------------------- images


@pytest.fixture
def pictures(tmp_path) -> Path:
    """48 training pictures, two of them damaged."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(draw.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{number:02}.png")
    (tmp_path / "pictures" / "train" / "cat" / "05.png").write_bytes(b"")
    (tmp_path / "pictures" / "train" / "dog" / "23.png").write_bytes(b"\x89PNG torn")
    return tmp_path / "pictures"


def learn(pictures: Path, runs: Path, share: float = 0.05, **settings: Any) -> Any:
    text = RECIPES["gradual"].replace("batch_size: 8,", f"batch_size: 8, max_damaged_images: {share},")
    return run(parse_recipe(text), Choice(SPEC), load_data(str(pictures)), name=NAME, runs=runs, **settings)


def test_damaged_pictures_are_left_out_named_and_counted_and_a_run_can_still_be_resumed(pictures, tmp_path) -> None:
    told: list[str] = []
    facts = learn(pictures, tmp_path / "whole", watchers=Watchers(report=told.append)).facts
    assert facts["damaged_images"] == 2
    assert sum("left out of training" in line for line in told) == 2
    assert any("cat/05.png: cannot be read as an image" in line for line in told)
    listed = (tmp_path / "whole" / NAME / "quarantine.jsonl").read_text().splitlines()
    assert {Path(json.loads(line)["what"].split(":")[0]).name for line in listed} == {"05.png", "23.png"}

    class Stopped(Exception):  # noqa: N818 - not an error
        pass

    def stop(done: Any) -> None:
        if done.step == 10:
            raise Stopped

    with pytest.raises(Stopped):
        learn(pictures, tmp_path / "cut", watchers=Watchers(step=stop))
    facts = learn(pictures, tmp_path / "cut", resume=True).facts
    assert facts["damaged_images"] == 2
    assert sha256(tmp_path / "cut") == sha256(tmp_path / "whole")


def test_too_many_damaged_pictures_end_the_run_and_are_named(pictures, tmp_path) -> None:
    with pytest.raises(DataError, match=r"2 of 48 .* allows 1:(.|\n)*05\.png(.|\n)*23\.png"):
        learn(pictures, tmp_path / "runs", share=0.03)


def test_a_damaged_test_picture_ends_the_run(pictures, tmp_path) -> None:
    (pictures / "val" / "cat" / "02.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"val/cat/02\.png"):
        learn(pictures, tmp_path / "runs")


# ---------------------------------------------------------------- memory


class Narrow(nn.Module):
    """A model for which memory holds only so many images at once."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.inner = tiny_vit()
        self.num_classes = 10
        self.room = room
        self.error = error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and len(images) > self.room:
            raise self.error
        return self.inner(images)


ERRORS = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("could not create a primitive"),  # oneDNN's words for it
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["python", "torch", "onednn", "cuda"])
def test_memory_that_runs_out_halves_the_images_at_once_and_changes_no_step(error) -> None:
    """SGD: Adam's first steps divide by the gradient's size and would enlarge rounding."""
    narrow, steps, _ = trained("optimizer: sgd", "", model=Narrow(3, error), batch_size=16, epochs=1)
    small, _, _ = trained("optimizer: sgd, accumulation_steps: 8", "", model=Narrow(2, error), batch_size=2, epochs=1)
    assert narrow.at_once == 2
    assert len(steps) == 4
    assert torch.equal(weights_of(narrow.model), weights_of(small.model))
    roomy, _, _ = trained("optimizer: sgd", "", model=Narrow(16, error), batch_size=16, epochs=1)
    assert torch.allclose(weights_of(narrow.model), weights_of(roomy.model), atol=1e-5)


def test_memory_that_does_not_hold_one_image_is_the_verdict() -> None:
    with pytest.raises(TrainingError, match="memory runs out with one image at once"):
        trained(modifiers="", model=Narrow(0, MemoryError()), epochs=1)


def test_other_errors_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        trained(modifiers="", model=Narrow(3, RuntimeError("shapes do not match")), batch_size=16, epochs=1)


def with_little_memory() -> None:
    """Gradients of 2048 images in a process that may have 40 MB more than it has."""
    torch.set_num_threads(1)
    model = tiny_vit()
    told: list[str] = []
    state = State(model, torch.optim.SGD(model.parameters()), {}, lambda *_: None, None, told.append)  # type: ignore[arg-type]
    objective = Objective(state, None, Training(batch_size=2048))
    images, labels = torch.randn(2048, 3, 16, 16), torch.arange(2048) % 10
    model.train()
    objective.backward(images[:32], labels[:32])
    model.zero_grad()
    expected = copy.deepcopy(model)
    for some, wanted in zip(images.split(100), labels.split(100), strict=True):  # oneDNN may not recover from a failure
        (nn.functional.cross_entropy(expected(some), wanted, reduction="sum") / len(images)).backward()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 40_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    objective.backward(images, labels)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    assert state.at_once is not None and told
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-3)


def test_a_process_whose_memory_is_limited_gets_the_same_gradients() -> None:
    assert in_a_process(with_little_memory) == 0


# ---------------------------------------------------------------- Fisher matrices

OVIT = """
  - !OViTPruningModifier
    params: ["re:.*mlp.*weight"]
    init_sparsity: 0.5
    final_sparsity: 0.5
    start_epoch: 0.5
    end_epoch: 0.5
    update_frequency: 1
    fisher_block_size: 16
    num_grads: 16
    damp: DAMP
"""


class Poisoned(nn.Module):
    """A model that has no number to say about some pictures, once it is not training."""

    def __init__(self, poison: torch.Tensor) -> None:
        super().__init__()
        self.inner = tiny_vit()
        self.num_classes = 10
        self.poison = poison

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.inner(images)
        if self.training:
            return logits
        bad = (images[:, None, :, :4, :4] == self.poison[None, :, :, :4, :4]).flatten(2).all(2).any(1)
        return torch.where(bad[:, None], torch.nan, logits)


def pixels(numbers: list[int]) -> torch.Tensor:
    chosen = torch.from_numpy(random_images().images[numbers]).permute(0, 3, 1, 2)
    return (chosen / 255 - 0.5) / 0.5


def drawn(draw: int) -> list[int]:
    """The calibration images of a draw."""
    return torch.randperm(64, generator=torch.Generator().manual_seed(draw))[:16].tolist()


def test_a_loss_that_is_not_finite_is_tried_again_with_other_images_and_more_damping() -> None:
    bad = next(number for number in drawn(0) if number not in drawn(1))
    model = Poisoned(pixels([bad]))
    _, _, records = trained(modifiers=OVIT.replace("DAMP", "1e-6"), model=model, epochs=1)
    details = next(line for line in records if line["event"] == "prune")["details"]
    assert details["damp"] == pytest.approx(1e-5)
    assert len(details["failed_attempts"]) == 1
    assert "the calibration loss is not finite" in details["failed_attempts"][0]


def test_after_three_attempts_there_is_a_verdict_and_the_weights_are_as_before() -> None:
    model = Poisoned(pixels([drawn(draw)[0] for draw in range(3)]))
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda module, _: seen.append(weights_of(module)))
    with pytest.raises(NotFiniteError, match="not finite .*, in each of 3 attempts"):
        trained(modifiers=OVIT.replace("DAMP", "1e-6"), model=model, epochs=1)
    assert torch.equal(seen[-1], weights_of(model))


def test_a_fisher_matrix_that_cannot_be_inverted_gets_damping() -> None:
    """Without fc2 no gradient reaches fc1: zeros, and no damping."""
    model = tiny_vit()
    nn.init.zeros_(model.blocks[0].mlp.fc2.weight)
    frozen = "\n  - !TrainableParamsModifier {params: [blocks.0.mlp.fc2.weight], trainable: false, start_epoch: 0}\n"
    only_fc1 = OVIT.replace("DAMP", "0").replace("re:.*mlp.*", "blocks.0.mlp.fc1.")
    state, _, records = trained("weight_decay: 0", frozen + only_fc1, model=model, epochs=1)
    details = next(line for line in records if line["event"] == "prune")["details"]
    assert details["damp"] == pytest.approx(1e-8)
    assert "cannot be inverted" in details["failed_attempts"][0]
    assert float((state.model.get_parameter("blocks.0.mlp.fc1.weight") == 0).float().mean()) == 0.5


def test_sums_of_squares_that_overflow_are_told_by_the_weights_name() -> None:
    with pytest.raises(NotFiniteError, match="Fisher matrix of a is not finite"):
        check_finite(Span("a", 0, 1, 1), torch.tensor([[[torch.inf]]]))


def test_memory_that_runs_out_in_a_pruning_takes_fewer_images_at_once() -> None:
    class Crowded(Narrow):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if not self.training and len(images) > self.room:
                raise self.error
            return self.inner(images)

    crowded, whole = (Crowded(room, ERRORS[1]) for room in (9, 64))
    pruned = [trained(modifiers=OVIT.replace("DAMP", "1e-6"), model=model, epochs=0.5) for model in (crowded, whole)]
    details = next(line for line in pruned[0][2] if line["event"] == "prune")["details"]
    assert details["images_at_once"] == 8
    masks = [state.masks for state, _, _ in pruned]
    agree = [float((masks[0][name] == masks[1][name]).float().mean()) for name in masks[0]]
    assert min(agree) > 0.99


# ---------------------------------------------------------------- disks


def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: int) -> bool:
    """Let one call of a run fail, and go on; whether there was something to go on from."""
    with monkeypatch.context() as patches:
        disk = Disk(patches)
        disk.failing, disk.error = number, error
        with pytest.raises((OSError, RunError), match=os.strerror(error)) as raised:
            go(tmp_path)
    if not isinstance(raised.value, RunError):
        assert not list(tmp_path.iterdir())
        return False
    assert f"--resume {NAME}" in raised.value.hint
    go(tmp_path, resume=True)
    return True


def calls_of_a_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patches:
        disk = Disk(patches)
        go(runs)
    return disk.calls


def test_a_run_whose_disk_fails_goes_on_to_the_same_weights(tmp_path, monkeypatch) -> None:
    calls = calls_of_a_run(tmp_path / "whole", monkeypatch)
    gone_on = [
        failing(tmp_path / str(number), monkeypatch, number, (errno.ENOSPC, errno.EIO)[number % 2])
        for number in (3, calls // 2, calls - 1)
    ]
    assert gone_on == [False, True, True]
    assert len({sha256(tmp_path / str(folder)) for folder in ("whole", calls // 2, calls - 1)}) == 1


@pytest.mark.slow
def test_a_run_goes_on_whichever_call_fails(tmp_path, monkeypatch) -> None:
    calls = calls_of_a_run(tmp_path / "whole", monkeypatch)
    for number in range(1, calls + 1):
        if failing(tmp_path / str(number), monkeypatch, number, (errno.ENOSPC, errno.EIO)[number % 2]):
            assert sha256(tmp_path / str(number)) == sha256(tmp_path / "whole")
