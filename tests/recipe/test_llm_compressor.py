import re

import pytest

from ovit_deploy.recipe.load import parse_recipe, read_recipe
from ovit_deploy.recipe.pruners import SparseGPTPruningModifier, WandaPruningModifier
from ovit_deploy.selectors import match

SHAPES = {
    f"{layer}.{kind}": (8, 8) if kind == "weight" else (8,)
    for layer in ("blocks.0.attn.qkv", "blocks.0.mlp.fc1", "blocks.0.mlp.fc2", "blocks.10.mlp.fc1", "head")
    for kind in ("weight", "bias")
}


def written(keys: str, name: str = "SparseGPTModifier") -> str:
    return f"oneshot_stage:\n  pruning_modifiers:\n    {name}: {{{keys}}}\n"


def test_sparsegpt_of_llm_compressor_is_ours() -> None:
    text = written("sparsity: 0.5, mask_structure: '2:4', dampening_frac: 0.02, targets: ['re:.*mlp'], block_size: 128")
    (found,) = parse_recipe(text).modifiers
    assert isinstance(found, SparseGPTPruningModifier)
    assert (found.final_sparsity, found.mask_type, found.damp, found.start, found.end_epoch) == (0.5, "2:4", 0.02, 0, 0)


def test_wanda_counts_zeros_in_its_pattern() -> None:
    (found,) = parse_recipe(
        written("sparsity: 0.25, mask_structure: '1:4', targets: x", "WandaPruningModifier")
    ).modifiers
    assert isinstance(found, WandaPruningModifier)
    assert found.mask_type == "3:4"


@pytest.mark.parametrize(
    ("targets", "ignore", "chosen"),
    [
        ("['re:.*mlp']", "[]", ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2", "blocks.10.mlp.fc1"]),
        ("['re:.*fc1$', head]", "[]", ["blocks.0.mlp.fc1", "blocks.10.mlp.fc1", "head"]),
        ("'re:.*'", "[head, 're:blocks.0.mlp']", ["blocks.0.attn.qkv", "blocks.10.mlp.fc1"]),
        ("'re:blocks'", "['re:.*fc1$']", ["blocks.0.attn.qkv", "blocks.0.mlp.fc2"]),
        ("[blocks.0.mlp.fc1]", "[]", ["blocks.0.mlp.fc1"]),
    ],
)
def test_layers_become_their_weights(targets: str, ignore: str, chosen: list[str]) -> None:
    (found,) = parse_recipe(written(f"sparsity: 0.5, targets: {targets}, ignore: {ignore}")).modifiers
    assert match(found.params, SHAPES) == [f"{layer}.weight" for layer in chosen]
    assert all(re.compile(selector.removeprefix("re:")) for selector in found.params)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("sparsity: 0.5, targets: [Linear]", "Linear is a class of layers"),
        ("sparsity: 0.5", "targets are missing"),
        ("sparsity: 0.5, targets: x, owl_m: 5", "key 'owl_m' has no counterpart"),
        ("sparsity: 0.5, targets: x, block_size: 64", "columns go together by 128"),
        ("sparsity: [0.5, 0.6], targets: x", "init_sparsity"),
        ("sparsity: 0.5, targets: {a: b}", "must be names of layers"),
    ],
)
def test_what_has_no_counterpart_is_told(keys: str, told: str) -> None:
    recipe, problems = read_recipe(written(keys), source="r.yaml")
    assert recipe is None
    assert any(told in problem.message for problem in problems)
