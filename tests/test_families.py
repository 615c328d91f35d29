import pytest
import timm
import torch

from ovit_deploy import catalog, families
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.families import FAMILIES, TRANSFORMERS, family_of, targets_of
from ovit_deploy.models import outline
from ovit_deploy.recipe.load import load_recipe
from ovit_deploy.recipe.pruners import OViTPruningModifier
from ovit_deploy.selectors import SelectorError, match


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("deit_tiny_distilled_patch16_224.fb_in1k", "ViT, DeiT"),
        ("vit_base_patch32_clip_224.openai", "CLIP, SigLIP"),
        ("vit_small_patch14_reg4_dinov2", "DINOv2, DINOv3"),
        ("xcit_tiny_12_p8_224", "XCiT"),
        ("swinv2_tiny_window8_256", "Swin"),
        ("efficientformer_l1", "EfficientFormer"),
        ("resnet50d", "ResNet"),
        ("tf_efficientnetv2_b0", "EfficientNet"),
        ("convnextv2_atto", "ConvNeXt"),
        ("eva02_tiny_patch14_224", "BEiT, EVA"),
        ("test_maxvit", "MaxViT, CoAtNet"),
    ],
)
def test_a_timm_name_tells_the_family(model: str, name: str) -> None:
    family = family_of(model)
    assert family is not None
    assert family.name == name


@pytest.mark.parametrize("model", ["densenet121", "resnetv2_50", "resnet50_clip", "maxvit_tiny_tf_224"])
def test_others_are_of_no_family(model: str) -> None:
    assert family_of(model) is None


@pytest.mark.parametrize("family", (*FAMILIES, TRANSFORMERS), ids=lambda family: family.name)
def test_table_and_recipe_agree(family: families.Family) -> None:
    recipe = load_recipe(catalog.find("recipes", family.recipe))
    (pruner,) = [modifier for modifier in recipe.modifiers if isinstance(modifier, OViTPruningModifier)]
    assert pruner.params == family.targets
    assert pruner.fisher_block_size == family.fisher_block_size
    assert pruner.damp == family.damping
    assert pruner.final_sparsity == 0.75


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_targets_are_most_weights_of_the_smallest_member_and_all_matrices(family: families.Family) -> None:
    assert family_of(family.smallest) is family
    network = outline(ModelSpec(family.smallest))
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    names = match(targets_of(family.smallest, shapes), shapes)
    for name in names:
        layer = network.get_submodule(name.removesuffix(".weight"))
        assert type(layer) in (torch.nn.Linear, torch.nn.Conv2d)
    chosen = sum(network.get_parameter(name).numel() for name in names)
    body = sum(p.numel() for name, p in network.named_parameters() if not set(name.split(".")) & families.ENDS)
    assert chosen > 0.7 * body


def test_in_a_model_of_no_family_all_but_the_ends_is_pruned() -> None:
    shapes = {
        "stem.weight": (8, 3, 3, 3),
        "a.weight": (8, 8),
        "a.bias": (8,),
        "bn.weight": (8,),
        "head.fc.weight": (2, 8),
    }
    assert targets_of("something", shapes) == ("a.weight",)


def test_a_member_without_what_its_family_has_is_refused() -> None:
    with pytest.raises(SelectorError, match="matches no parameter"):
        targets_of("resnet18", {"conv1.weight": (8, 3, 3, 3)})


def test_every_pattern_fits_a_model_of_timm() -> None:
    names = timm.list_models()
    for family in FAMILIES:
        for pattern in family.models:
            if not pattern.startswith("!"):
                assert any(families.fnmatchcase(name, pattern) for name in names), pattern
