"""What a recipe says of Fisher matrices, carried out by the dated actions of a run."""

import copy
from pathlib import Path

import pytest
import torch
from cases import tiny_calibration, tiny_vit

from ovit_deploy.errors import PruningError, RecipeError
from ovit_deploy.finetune.actions import State, carry_out
from ovit_deploy.finetune.methods import calibrated, method_of
from ovit_deploy.kernels.triangle import num_held
from ovit_deploy.pruning import Calibration, Loss
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.pruners import PruningModifier
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import timeline

GRADUAL = """modifiers:
  - !EpochRangeModifier {{start_epoch: 0, end_epoch: 3}}
  - !{tag}
    params: ['re:blocks.0.*fc1.weight']
    init_sparsity: 0.3
    final_sparsity: 0.6
    start_epoch: 0
    end_epoch: 2
    update_frequency: 1
    num_grads: 20
    fisher_block_size: 32
    damp: 0.0001
    {more}
"""


def recipe_of(more: str, tag: str = "OViTPruningModifier"):
    return parse_recipe(GRADUAL.format(tag=tag, more=more))


def modifier_of(more: str, tag: str = "OViTPruningModifier") -> PruningModifier:
    modifier = recipe_of(more, tag).modifiers[1]
    assert isinstance(modifier, PruningModifier)
    return modifier


def gradual(more: str, tag: str = "OViTPruningModifier", *, scratch: Path | None = None, budget: int = 2**26) -> State:
    """Three prunings of a tiny ViT, whose teacher has other weights."""
    recipe, model = recipe_of(more, tag), tiny_vit()
    targets = resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()})
    optimizer = torch.optim.AdamW(model.parameters())
    state = State(model, optimizer, targets, lambda num, draw=0: tiny_calibration(num), budget, lambda _: None)
    state.teacher, state.scratch = tiny_vit(seed=5).eval(), scratch
    for item in timeline(recipe).dated:
        carry_out(item.action, state, item.epoch)
    return state


def masks_of(more: str, **asked) -> torch.Tensor:
    (mask,) = gradual(more, **asked).masks.values()
    assert int((~mask).sum()) == round(0.6 * mask.numel())
    return mask


@pytest.mark.parametrize(
    "more",
    [
        "labels: sampled",
        "labels: teacher",
        "precision: bfloat16",
        "images_per_gradient: 2",
        "damping: relative",
        "damping: robust",
        "fisher_ema: 0.9",
    ],
)
def test_an_option_changes_what_is_pruned_and_not_how_much(more: str) -> None:
    assert not torch.equal(masks_of(more), masks_of(""))


@pytest.mark.parametrize("tag", ["OViTPruningModifier", "OBSPruningModifier"])
def test_spilling_changes_the_passes_and_nothing_else(tmp_path: Path, tag: str) -> None:
    kept, spilled = (gradual(f"spill: {spill}", tag, scratch=tmp_path, budget=300_000) for spill in ("false", "true"))
    passes = [[line["details"]["passes"] for line in state.prunings] for state in (kept, spilled)]
    assert passes[0] == [2 * number for number in passes[1]]
    assert all(torch.equal(kept.masks[name], spilled.masks[name]) for name in kept.masks)
    assert list(tmp_path.iterdir()) == []


def test_a_moving_average_is_kept_in_the_state_of_training() -> None:
    state = gradual("fisher_ema: 0.9")
    (average,) = state.averages.values()
    assert {name: tuple(block.shape) for name, block in average.blocks.items()} == {
        "blocks.0.mlp.fc1.weight": (128, num_held(32))
    }
    assert gradual("").averages == {}


def test_spilling_without_a_folder_is_an_error() -> None:
    with pytest.raises(PruningError, match="no folder to spill to"):
        method_of(modifier_of("spill: true"), None)


@pytest.mark.parametrize("kind", ["relative", "robust"])
def test_a_relative_damping_wants_its_own_damp(kind: str) -> None:
    text = GRADUAL.format(tag="OViTPruningModifier", more=f"damping: {kind}").replace("    damp: 0.0001\n", "")
    with pytest.raises(RecipeError, match="needs a damp of its own"):
        parse_recipe(text)


@pytest.mark.parametrize("more", ["labels: soft", "precision: float16", "fisher_ema: 1.0", "images_per_gradient: 0"])
def test_options_that_mean_nothing_are_errors_of_the_recipe(more: str) -> None:
    with pytest.raises(RecipeError, match=more.split(":", maxsplit=1)[0]):
        recipe_of(more)


def test_images_are_counted_for_whole_gradients() -> None:
    modifier = modifier_of("images_per_gradient: 3")
    assert modifier.num_images == 60
    calibration = calibrated(modifier, Calibration(list, modifier.num_images), None)
    assert (calibration.num_gradients, calibration.loss) == (20, Loss())


def test_a_teacher_is_asked_only_where_the_recipe_says_so() -> None:
    teacher = copy.deepcopy(tiny_vit()).eval()
    asked, not_asked = (
        calibrated(modifier_of(more), tiny_calibration(), teacher) for more in ("labels: teacher", "labels: sampled")
    )
    assert asked.loss == Loss("teacher", teacher=teacher)
    assert not_asked.loss == Loss("sampled")
