import pytest
import timm
import torch
from cases import images_and_labels, tiny_convnet, tiny_vit
from timm.layers import DropPath

from ovit_deploy.errors import RecipeError
from ovit_deploy.finetune.drop_path import set_drop_path
from ovit_deploy.finetune.optimizer import optimizer_for
from ovit_deploy.recipe.schema import Training


def decays(model: torch.nn.Module, training: Training) -> dict[str, float]:
    of = {
        id(p): group["weight_decay"] for group in optimizer_for(model, training).param_groups for p in group["params"]
    }
    return {name: of[id(p)] for name, p in model.named_parameters()}


def test_biases_norms_tokens_and_what_the_recipe_names_do_not_decay() -> None:
    told = decays(tiny_vit(), Training(weight_decay=0.03, no_decay=("head.*", "patch_embed.proj.weight")))
    free = {name for name, decay in told.items() if decay == 0}
    assert {"cls_token", "pos_embed", "norm.weight", "head.weight", "patch_embed.proj.weight"} <= free
    assert {name for name in told if name.startswith("blocks") and told[name]} == {
        f"blocks.{block}.{layer}.weight"
        for block in (0, 1)
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    assert told["blocks.0.mlp.fc1.weight"] == 0.03


def test_layers_learn_more_slowly_the_farther_from_the_head() -> None:
    model = tiny_vit()
    scales = {
        id(p): group["lr_scale"]
        for group in optimizer_for(model, Training(layer_decay=0.5)).param_groups
        for p in group["params"]
    }
    told = [
        scales[id(model.get_parameter(f"{name}.weight"))] for name in ("head", "blocks.1.mlp.fc1", "blocks.0.mlp.fc1")
    ]
    assert told == sorted(told, reverse=True)
    assert told[1] / told[2] == pytest.approx(2)


def test_betas_and_momentum_reach_the_optimizer() -> None:
    assert optimizer_for(tiny_vit(), Training(betas=(0.8, 0.95))).defaults["betas"] == (0.8, 0.95)
    assert optimizer_for(tiny_vit(), Training(optimizer="sgd", momentum=0.5)).defaults["momentum"] == 0.5


@pytest.mark.parametrize("settings", [{"optimizer": "adamwx"}, {"optimizer": "sgd", "betas": (0.9, 0.99)}])
def test_settings_that_no_optimizer_has_are_refused(settings) -> None:
    with pytest.raises(RecipeError, match=r"training\.(optimizer|betas)"):
        optimizer_for(tiny_vit(), Training(**settings))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 5, "num_heads": 2}),
        ("convnext_atto", {"depths": (1, 1, 2, 1), "dims": (8, 8, 8, 8)}),
    ],
)
def test_drop_path_is_what_timm_builds(name, kwargs) -> None:
    ours, theirs = timm.create_model(name, **kwargs), timm.create_model(name, drop_path_rate=0.3, **kwargs)
    set_drop_path(ours, 0.3)
    rates = [
        [(path, round(m.drop_prob, 6)) for path, m in model.named_modules() if isinstance(m, DropPath)]
        for model in (ours, theirs)
    ]
    assert rates[0] == rates[1]
    assert rates[0]
    set_drop_path(ours, 0.0)
    assert not any(isinstance(module, DropPath) for module in ours.modules())


def test_drop_path_drops_in_training_only() -> None:
    model = tiny_vit()
    images, _ = images_and_labels(8)
    plain = model.eval()(images)
    set_drop_path(model, 0.9)
    assert torch.equal(model.eval()(images), plain)
    assert not torch.allclose(model.train()(images), plain)


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(RecipeError, match="has no blocks that can be dropped"):
        set_drop_path(tiny_convnet(), 0.1)
