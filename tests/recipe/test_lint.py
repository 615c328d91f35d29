from pathlib import Path

import pytest

from ovit_deploy.recipe.alternatives import dead_alternatives
from ovit_deploy.recipe.lint import Finding, lint

ROOT = Path(__file__).parents[2]
SHAPES = {
    "cls_token": (1, 1, 8),
    "patch_embed.proj.weight": (8, 3, 4, 4),
    "blocks.0.norm1.weight": (8,),
    "blocks.0.attn.qkv.weight": (24, 8),
    "blocks.0.attn.qkv.bias": (24,),
    "blocks.0.mlp.fc1.weight": (32, 8),
    "head.weight": (10, 8),
}
RATE = "  - !SetLearningRateModifier {learning_rate: 1e-3}\n"


def pruner(params: str = "['re:blocks.*(qkv|fc1).weight']", tag: str = "GMPruningModifier", **changes: object) -> str:
    keys = {"init_sparsity": 0.5, "final_sparsity": 0.8, "start_epoch": 0, "end_epoch": 2, "update_frequency": 1}
    body = "".join(f"    {key}: {value}\n" for key, value in (keys | changes).items())
    return f"  - !{tag}\n    params: {params}\n{body}"


def recipe(*parts: str, end: float = 4) -> str:
    return f"modifiers:\n  - !EpochRangeModifier {{end_epoch: {end}}}\n" + "".join(parts)


def found(text: str, **context) -> list[Finding]:
    return lint(text, source="r.yaml", **context)


def test_a_sound_recipe_has_no_findings() -> None:
    assert found(recipe(RATE, pruner()), shapes=SHAPES, steps_per_epoch=10) == []


@pytest.mark.parametrize(
    ("text", "severity", "code", "line"),
    [
        (recipe(RATE, pruner(end_epoch=9)), "error", "past-end", 4),
        (recipe(RATE, pruner(end_epoch=4)), "warning", "no-recovery", 4),
        (recipe(pruner()), "note", "default-rate", 2),
        (recipe(RATE), "note", "zeros-not-held", 2),
        (recipe(RATE, pruner(update_frequency=0.01)), "warning", "too-frequent", 4),
        (recipe(RATE, pruner("re:nothing")), "error", "no-match", 4),
        (recipe(RATE, pruner("re:(")), "error", "no-match", 4),
        (recipe(RATE, pruner("['re:.*(attn.[qkv]|fc1).weight']")), "warning", "dead-alternative", 4),
        (recipe(RATE, pruner("re:.*norm.*")), "warning", "prunes-vectors", 4),
        (recipe(RATE, pruner("cls_token")), "warning", "prunes-tokens", 4),
        (recipe(RATE, pruner("__ALL_PRUNABLE__")), "warning", "prunes-patches", 4),
        (recipe(RATE, pruner("__ALL_PRUNABLE__")), "warning", "prunes-head", 4),
        (recipe(RATE, pruner(tag="OViTPruningModifier", fisher_block_size=7)), "note", "uneven-blocks", 4),
        (recipe(RATE, pruner(), pruner("re:.*fc1.*")), "warning", "twice-at-once", 11),
        (recipe(RATE, pruner(), pruner(start_epoch=3, end_epoch=3)), "clean", "", 0),
        (recipe(RATE, pruner(), pruner(start_epoch=3, end_epoch=3, final_sparsity=0.6)), "error", "sparsity-falls", 11),
        (recipe(RATE, pruner(mask_type="'4:4'")), "error", "invalid", 11),
        ("modifiers: [", "error", "invalid", 1),
    ],
)
def test_findings(text: str, severity: str, code: str, line: int) -> None:
    told = found(text, shapes=SHAPES, steps_per_epoch=10)
    if severity == "clean":
        assert told == []
        return
    assert any((f.severity, f.code, f.place.split(":")[1]) == (severity, code, str(line)) for f in told), told


FUNCTION = """  - !LearningRateFunctionModifier
    {{lr_func: {}, init_lr: 1e-3, final_lr: 0, start_epoch: {}, end_epoch: {}}}
"""


def test_a_cycle_that_two_tools_read_differently_is_told_unless_a_dialect_is() -> None:
    text = recipe(FUNCTION.format("linear, cycle_epochs: 2", 0, 4), pruner())
    assert [finding.code for finding in found(text)] == ["ambiguous-cycle"]
    assert found("dialect: cap\n" + text) == []


def test_a_rate_that_another_cuts_short_is_told() -> None:
    text = recipe(FUNCTION.format("linear", 0, 4), FUNCTION.format("cosine", 2, 4), pruner())
    assert [(finding.code, finding.place) for finding in found(text)] == [("rate-cut", "r.yaml:5:5")]


@pytest.mark.parametrize(
    ("pattern", "dead"),
    [
        (".*(qkv|fc1).weight", []),
        (".*(qkv|fc9).weight", ["fc9"]),
        ("(.*attn.[qkv].weight)|(.*fc1.weight)", ["(.*attn.[qkv].weight)"]),
        (r".*(?:qkv|a\|b|[|]x).weight", [r"a\|b", "[|]x"]),
        ("(?P<kind>head|neck).weight", ["neck"]),
        ("(?!head|neck).*", []),
        ("head.weight|[]|]z", ["[]|]z"]),
    ],
)
def test_branches_that_match_nothing(pattern: str, dead: list[str]) -> None:
    assert dead_alternatives(pattern, SHAPES) == dead


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_have_no_errors(path: Path) -> None:
    told = lint(path.read_text(), source=str(path), steps_per_epoch=90)
    assert [finding for finding in told if finding.severity == "error"] == []
