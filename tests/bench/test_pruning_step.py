from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ovit_deploy import checkpoint
from ovit_deploy.bench import memory_use, pruning_child
from ovit_deploy.bench.pruning_child import Task, carry_out, targets
from ovit_deploy.bench.pruning_step import same_fate, task_of
from ovit_deploy.bench.suite import PruningStep
from ovit_deploy.errors import PruningError
from ovit_deploy.models import Choice, ModelSpec, build

TINY = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
STEP = PruningStep(model="vit_tiny_patch16_224", model_kwargs=TINY, num_grads=20, damping=1e-4, threads=1)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


def task(form: pruning_child.Form, step: PruningStep = STEP, folder: Path = Path()) -> Task:
    return task_of(step, form, folder, allocation="cumulative", block_size=32, seed=0)


def test_both_forms_find_the_same_masks(tmp_path: Path) -> None:
    masks = []
    for form in ("plain", "oViT"):
        outcome = carry_out(task(form), tmp_path / form)
        assert outcome.num_weights == 24576 and outcome.num_layers == 8
        assert outcome.cpu_s > 0 and outcome.peak_bytes < 2**30
        masks.append(checkpoint.load_tensors(tmp_path / form))
    assert same_fate(*masks) > 0.999
    assert sum(int(mask.sum()) for mask in masks[1].values()) == round(0.25 * 24576)


def test_what_memory_does_not_hold_goes_to_disk_where_that_is_asked_for(tmp_path: Path) -> None:
    short = STEP.model_copy(update={"memory_gb": 0.0025})
    again, spilled = (
        carry_out(task("oViT", short.model_copy(update={"spill": spill}), tmp_path), tmp_path / "masks")
        for spill in (False, True)
    )
    assert again.passes == 2 * spilled.passes > 2
    assert again.predicted_loss == pytest.approx(spilled.predicted_loss)


def test_fewer_layers_can_be_chosen() -> None:
    model = build(Choice(ModelSpec("vit_tiny_patch16_224", TINY)))
    assert len(targets(model, "all")) == 8
    assert targets(model, r".*fc1") == ["blocks.0.mlp.fc1.weight", "blocks.1.mlp.fc1.weight"]


def test_a_failure_in_the_child_says_what_was_wrong(tmp_path: Path) -> None:
    with pytest.raises(PruningError, match="matches no parameter"):
        pruning_child.run(task("oViT", STEP.model_copy(update={"layers": "stages"})), tmp_path / "masks")


def test_fate_is_the_same_where_both_keep_or_both_prune() -> None:
    first = {"a": torch.tensor([1, 0, 1]), "b": torch.tensor([0])}
    second = {"a": torch.tensor([1, 0, 0]), "b": torch.tensor([0])}
    assert same_fate(first, second) == 0.75


def test_the_peak_starts_anew() -> None:
    large = torch.ones(2**25)
    del large
    before = memory_use.start_counting()
    assert memory_use.peak() - before < 2**26
    large = torch.ones(2**25)
    assert memory_use.peak() - before > 2**26
    del large
