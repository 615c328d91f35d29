"""Mistakes that pruning code in the wild has made, one test each; those that have one elsewhere are only named.

a second prune forgets the first      test_method, test_ovit: ..._second_prune_..., ..._two_prunes_in_a_row_...
N:M pruned as unstructured            finetune/test_methods: two_of_four..., ...that_a_pruner_lacks_is_refused
a parameter's data is replaced        test_method: applying_copies_in_place
a pattern that matches nothing        recipe/test_targets: a_selector_that_selects_nothing_is_an_error
"""

import pytest
import timm
import torch
from cases import full_masks, tiny_calibration, tiny_vit

from ovit_deploy.data import Preprocessing
from ovit_deploy.finetune.actions import State, carry_out
from ovit_deploy.finetune.masks import MaskedOptimizer
from ovit_deploy.pruning import FastOViT, OViT, UniformMagnitude
from ovit_deploy.pruning.streaming import plan
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import timeline
from ovit_deploy.selectors import match

NAME = "blocks.0.mlp.fc1.weight"
PAPERS_TARGETS = [r"re:blocks\..*(attn\.(qkv|proj)|mlp\.fc[12])\.weight"]


def test_the_fast_variant_is_not_magnitude_pruning():
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model)
    fast = FastOViT(32, 40).prune(model, masks, sparsity=0.5, calibration=calibration)
    plain = UniformMagnitude().prune(model, masks, sparsity=0.5)
    for name, mask in fast.masks.items():
        assert not torch.equal(mask, plain.masks[name])
        assert not torch.equal(fast.weights[name][mask], model.get_parameter(name).detach()[mask])


def test_gradients_of_pruned_weights_do_not_reach_the_others():
    """F^-1 is the inverse over the active weights: noise in the gradients of pruned ones changes nothing."""
    model, calibration = tiny_vit().double(), tiny_calibration(dtype=torch.float64)
    method = OViT(32, 40, 1e-4, memory_budget=2**26)
    pruned = method.prune(model, full_masks(model, [NAME]), sparsity=0.5, calibration=calibration)
    model.get_parameter(NAME).data.copy_(pruned.weights[NAME])
    problem = method.problem(model, pruned.masks, calibration)
    (group,) = plan(problem)
    (span,) = group
    fisher_KBB = fisher_of(problem, span)
    kept_KB = span.cut(pruned.masks[NAME])
    noisy_KBB = fisher_KBB + (~kept_KB)[:, :, None] * 7.0 + (~kept_KB)[:, None, :] * 7.0
    w_KB = span.cut(pruned.weights[NAME])
    clean, noisy = (problem.scheme.order(w_KB, curvature, kept_KB)[0] for curvature in (fisher_KBB, noisy_KBB))
    assert torch.equal(clean.rank_KB, noisy.rank_KB)
    torch.testing.assert_close(clean.marginal_KB, noisy.marginal_KB)


def fisher_of(problem, span):
    asked = {"num_grads": problem.num_grads, "damping": problem.damping, "work_bytes": problem.work_bytes}
    found = problem.scheme.collect(problem.model, [span], problem.masks, problem.calibration, **asked)
    return problem.scheme.whole(found.blocks[span], span.block_size)


def test_pruning_leaves_parameters_and_their_moments_where_they_are():
    recipe = parse_recipe(
        "modifiers:\n"
        "  - !GMPruningModifier {params: ['re:.*fc1.weight'], init_sparsity: 0.5, final_sparsity: 0.5,\n"
        "      start_epoch: 0, end_epoch: 0, update_frequency: 1}\n"
    )
    model = tiny_vit()
    targets = resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    state = State(model, optimizer, targets, lambda _: pytest.fail("needs no images"), None, lambda _: None)
    MaskedOptimizer(model, optimizer, state.masks)
    before = {name: (p, p.data_ptr()) for name, p in model.named_parameters()}
    images, labels = next(iter(tiny_calibration().batches()))
    for action in (None, *(item.action for item in timeline(recipe).dated)):
        if action is not None:
            carry_out(action, state, 0)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert {name: (p, p.data_ptr()) for name, p in model.named_parameters()} == before
    for name, mask in state.masks.items():
        parameter = model.get_parameter(name)
        assert (parameter[~mask] == 0).all() and (parameter[mask] != 0).any()
        assert optimizer.state[parameter]["step"] == 2


def test_sixty_percent_of_prunable_weights_are_fewer_of_all():
    with torch.device("meta"):
        model = timm.create_model("deit_tiny_patch16_224")
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    names = match(PAPERS_TARGETS, shapes)
    prunable = sum(model.get_parameter(name).numel() for name in names)
    every = sum(parameter.numel() for parameter in model.parameters())
    assert len(names) == 48
    assert 0.6 * prunable / every == pytest.approx(0.557, abs=5e-4)


def test_images_are_prepared_as_the_model_was_trained_to_see_them():
    with torch.device("meta"):
        seen = Preprocessing.of(timm.create_model("deit_tiny_patch16_224")).as_dict()
    assert tuple(seen["input_size"])[-2:] == (224, 224)
    assert (seen["interpolation"], seen["crop_pct"]) == ("bicubic", 0.9)
