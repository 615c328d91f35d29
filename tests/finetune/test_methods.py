"""Every pruning tag of a recipe, carried out on a real network."""

import pytest
import torch
from cases import tiny_vit

from ovit_deploy.finetune.masks import full
from ovit_deploy.finetune.methods import method_of
from ovit_deploy.pruning import Calibration
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.pruners import PruningModifier
from ovit_deploy.recipe.schema import MODIFIERS

TAGS = sorted(name for name, kind in MODIFIERS.items() if issubclass(kind, PruningModifier))
EXTRA = {
    "MFACPruningModifier": "global_sparsity: true, fisher_block_size: 32, num_grads: 16",
    "OBSPruningModifier": "fisher_block_size: 32, num_grads: 16",
    "OViTPruningModifier": "fisher_block_size: 32, num_grads: 16",
    "CAPruningModifier": "fisher_block_size: 32, num_grads: 16",
    "OBC_OBS_PruningModifier": "fisher_block_size: 32, num_grads: 16",
    "FastCAPruningModifier": "fisher_block_size: 32, num_grads: 16",
    "FastOViTPruningModifier": "fisher_block_size: 32, num_grads: 16",
    "GWProdPruningModifier": "num_grads: 16",
    "SparseGPTPruningModifier": "num_samples: 16",
    "OBCPruningModifier": "num_samples: 16",
    "WandaPruningModifier": "num_samples: 16",
}


def modifier(tag: str, more: str = "", sparsity: float = 0.5) -> PruningModifier:
    keys = ["params: __ALL_PRUNABLE__", f"init_sparsity: {sparsity}, final_sparsity: {sparsity}"]
    keys += ["start_epoch: 1, end_epoch: 1, update_frequency: 1", EXTRA.get(tag, ""), more]
    read = parse_recipe(f"modifiers:\n  - !{tag} {{{', '.join(filter(None, keys))}}}\n").modifiers[0]
    assert isinstance(read, PruningModifier)
    return read


def pruned_masks(asked: PruningModifier) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = tiny_vit()
    names = [
        name for name in dict(model.named_parameters()) if name.startswith("blocks") and name.endswith("proj.weight")
    ]
    images, labels = torch.randn(16, 3, 16, 16), torch.arange(16) % model.num_classes
    calibration = Calibration(lambda: [(images, labels)], 16) if asked.num_images else None
    scores = {name: torch.randn_like(model.get_parameter(name).detach()) for name in names}
    method = method_of(asked, memory_budget=2**30, scores=scores)
    pruned = method.prune(model, full(model, names), sparsity=asked.final_sparsity, calibration=calibration)
    assert all((pruned.weights[name][~mask] == 0).all() for name, mask in pruned.masks.items())
    return pruned.masks


@pytest.mark.parametrize("tag", TAGS)
def test_every_pruning_tag_prunes_to_its_sparsity(tag) -> None:
    masks = pruned_masks(modifier(tag))
    assert sum(int((~mask).sum()) for mask in masks.values()) * 2 == sum(mask.numel() for mask in masks.values())


@pytest.mark.parametrize("tag", [tag for tag in TAGS if "N:M" in MODIFIERS[tag].masks])  # type: ignore[attr-defined]
def test_two_of_four_are_kept_in_every_group(tag) -> None:
    for mask in pruned_masks(modifier(tag, "mask_type: '2:4'")).values():
        assert (mask.view(-1, 4).sum(dim=1) == 2).all()


@pytest.mark.parametrize("tag", [tag for tag in TAGS if "1xG" in MODIFIERS[tag].masks])  # type: ignore[attr-defined]
def test_blocks_of_four_go_together(tag) -> None:
    for mask in pruned_masks(modifier(tag, "mask_type: block4")).values():
        assert set(mask.view(-1, 4).sum(dim=1).tolist()) <= {0, 4}


def test_a_pattern_with_another_sparsity_is_refused() -> None:
    with pytest.raises(Exception, match="2:4 has one sparsity"):
        modifier("OViTPruningModifier", "mask_type: '2:4'", sparsity=0.75)


@pytest.mark.parametrize("tag", [tag for tag in TAGS if "RxC" in MODIFIERS[tag].masks])  # type: ignore[attr-defined]
def test_blocks_of_two_rows_go_together(tag) -> None:
    for mask in pruned_masks(modifier(tag, "mask_type: [2, 4]")).values():
        zeros = (~mask).reshape(mask.shape[0] // 2, 2, -1, 4).sum(dim=(1, 3))
        assert set(zeros.unique().tolist()) <= {0, 8}


def test_a_pattern_that_a_pruner_lacks_is_refused() -> None:
    with pytest.raises(Exception, match="not supported here"):
        modifier("OBCPruningModifier", "mask_type: [2, 4]")


@pytest.mark.parametrize("tag", ["OViTPruningModifier", "SparseGPTPruningModifier", "GMPruningModifier"])
def test_bounds_of_a_recipe_hold(tag) -> None:
    ceiling = "max_sparsity: {'re:blocks.0.*': 0.4}"
    masks = pruned_masks(modifier(tag, ceiling))
    first, second = (float((~masks[f"blocks.{block}.attn.proj.weight"]).double().mean()) for block in (0, 1))
    assert first <= 0.4 and first + second == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("tag", "more", "images"),
    [
        ("GMPruningModifier", "allocation: erk", 0),
        ("GMPruningModifier", "allocation: owl, owl_samples: 16", 16),
        ("GlobalMagnitudePruningModifier", "price: flops", 1),
        ("OViTPruningModifier", "allocation: owl, owl_samples: 8", 16),
        ("WandaPruningModifier", "allocation: owl, owl_samples: 16", 16),
    ],
)
def test_allocation_is_given_the_images_that_it_looks_at(tag, more, images) -> None:
    asked = modifier(tag, more)
    assert asked.num_images == images
    masks = pruned_masks(asked)
    assert sum(int((~mask).sum()) for mask in masks.values()) * 2 == sum(mask.numel() for mask in masks.values())
