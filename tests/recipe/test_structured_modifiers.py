import pytest

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.planning import events
from ovit_deploy.recipe.timeline import MergeTokens, Prune, Quantize, Thin, ThinLayers, timeline
from ovit_deploy.recipe.write import write

GRADUAL = "- !HeadWidthPruningModifier {final_sparsity: 0.5, start_epoch: 1, end_epoch: 3, update_frequency: 1}"
ONCE = "{final_sparsity: 0.25, start_epoch: 2, end_epoch: 2}"


FILTERS = "{init_sparsity: 0.1, final_sparsity: 0.5, start_epoch: 0, end_epoch: 2, update_frequency: 1"
MAP = "param_group_dependency_map: {'a, b': [c, d]}\n      start_epoch: 2\n      update_epochs: [3, 4]"


def recipe(*modifiers: str) -> str:
    return "modifiers:\n  - !EpochRangeModifier {end_epoch: 5}\n" + "".join(f"  {one}\n" for one in modifiers)


def test_tokens_merge_after_parts_went_and_stay_merged_in_what_is_resumed() -> None:
    plan = timeline(
        parse_recipe(recipe("- !TokenMergingModifier {tokens: 4, start_epoch: 2}", f"- !HeadPruningModifier {ONCE}"))
    )
    assert [type(item.action) for item in plan.dated] == [Thin, MergeTokens]
    assert plan.past(3.0, 0.1, including=True) == [plan.dated[1].action]


def test_removals_are_dated_and_removing_nothing_is_left_out() -> None:
    plan = timeline(parse_recipe(recipe(GRADUAL)))
    assert [(item.epoch, item.action.sparsity) for item in plan.dated] == [(2.0, 0.4375), (3.0, 0.5)]


def test_parts_go_before_zeros_and_integers_come() -> None:
    prune = "- !GMPruningModifier {params: __ALL_PRUNABLE__, init_sparsity: 0.5, final_sparsity: 0.5, start_epoch: 2, "
    prune += "end_epoch: 2, update_frequency: 1}"
    plan = timeline(
        parse_recipe(recipe("- !QuantizationModifier {start_epoch: 2}", prune, f"- !HeadPruningModifier {ONCE}"))
    )
    assert [type(item.action) for item in plan.dated] == [Thin, Prune, Quantize]
    assert plan.past(3.0, 0.1, including=True) == [plan.dated[2].action]
    assert plan.final_sparsity == 0.5


def test_sparsemls_tags_are_planned_and_written_as_they_were_read() -> None:
    read = parse_recipe(
        recipe(
            f"- !StructuredPruningModifier {FILTERS}, mask_type: channel}}", "- !LayerThinningModifier", f"    {MAP}"
        )
    )
    assert parse_recipe(write(read)).modifiers == read.modifiers
    assert [(item.epoch, type(item.action)) for item in timeline(read).dated] == [
        (0, Prune),
        (1, Prune),
        (2, Prune),
        (2, ThinLayers),
        (3, ThinLayers),
        (4, ThinLayers),
    ]
    thinning = read.modifiers[-1]
    assert thinning.groups == [(("a", "b"), ("c", "d"))]
    assert [event.what for event in events(read) if event.action == "remove"] == [
        "filters of zeros in 1 groups of layers"
    ] * 3


@pytest.mark.parametrize("tag", ["Head", "Width", "Depth", "HeadWidth", "Channel", "Embedding"])
def test_every_modifier_is_planned_and_written_as_it_was_read(tag: str) -> None:
    read = parse_recipe(recipe(f"- !{tag}PruningModifier {ONCE}"))
    assert parse_recipe(write(read)).modifiers == read.modifiers
    (event,) = [event for event in events(read) if event.action == "remove"]
    assert event.epoch == 2 and "25.00% of" in event.what


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            recipe("- !QuantizationModifier {start_epoch: 1}", GRADUAL),
            "removes parts at epoch 2, quantized from epoch 1",
        ),
        ("compat: sparseml\n" + recipe(GRADUAL), "does not follow SparseML's steps"),
        (
            recipe("- !WidthPruningModifier {final_sparsity: 0.2, init_sparsity: 0.5, start_epoch: 0, end_epoch: 1}"),
            "below",
        ),
        (
            recipe("- !HeadWidthPruningModifier {final_sparsity: 0.2, start_epoch: 0, end_epoch: 0, budget: heads}"),
            "budget",
        ),
        (recipe(f"- !HeadPruningModifier {ONCE[:-1]}, saliency: loss}}"), "saliency loss is measured of blocks only"),
        (recipe(f"- !ChannelPruningModifier {ONCE[:-1]}, saliency: taylor}}"), "taylor is not known of channels"),
        (recipe(f"- !EmbeddingPruningModifier {ONCE[:-1]}, saliency: obs}}"), "not known of the embedding"),
        (recipe(f"- !ChannelPruningModifier {ONCE[:-1]}, budget: latency}}"), "budget"),
        (recipe(f"- !StructuredPruningModifier {FILTERS}, mask_type: '2:4'}}"), "mask_type"),
        (
            recipe(f"- !StructuredPruningModifier {FILTERS}, param_groups: [[a, b], [b, c]]}}"),
            "b in more than one group",
        ),
        (
            "compat: sparseml\n" + recipe(f"- !StructuredPruningModifier {FILTERS}}}"),
            "does not follow SparseML's steps",
        ),
        (recipe("- !LayerThinningModifier {param_group_dependency_map: {a: [b]}, strict: false}"), "remove the key"),
        (recipe("- !LayerThinningModifier {param_group_dependency_map: {a: [b]}, end_epoch: 3}"), "stays so"),
        (recipe("- !LayerThinningModifier {param_group_dependency_map: {}}"), "param_group_dependency_map"),
        (
            recipe("- !QuantizationModifier {start_epoch: 1}", "- !LayerThinningModifier", f"    {MAP}"),
            "quantized from epoch 1",
        ),
        (recipe(f"- !HeadPruningModifier {ONCE[:-1]}, budget: latency}}"), "prune --target-latency measures it"),
    ],
)
def test_what_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        timeline(parse_recipe(text))
