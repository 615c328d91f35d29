"""What a recipe may look like: its carriers, stages, dialects and spellings."""

from pathlib import Path

import pytest

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe import mask_types, tags
from ovit_deploy.recipe.load import load_recipe, parse_recipe
from ovit_deploy.recipe.modifiers import ConstantPruningModifier, EpochRangeModifier, LearningRateFunctionModifier
from ovit_deploy.recipe.pruners import GlobalMagnitudePruningModifier, PruningModifier
from ovit_deploy.recipe.schema import MODIFIERS
from ovit_deploy.recipe.timeline import Prune, Train, timeline

CORPUS = Path(__file__).parent / "corpus"
PRUNE = """
    params: __ALL_PRUNABLE__
    init_sparsity: 0
    final_sparsity: 0.5
    start_epoch: 0
    end_epoch: 1
    update_frequency: 1
"""


def problems(text: str, source: str = "r.yaml") -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, source=source)
    return caught.value.message.splitlines()


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_corpus_is_read(path: Path) -> None:
    recipe = load_recipe(path)
    assert timeline(recipe).num_epochs >= 0
    assert len(recipe.places) == len(set(recipe.places)) == len(recipe.modifiers) == len(recipe.stages)


def test_front_matter_keeps_the_lines_of_its_file() -> None:
    path = CORPUS / "front_matter.md"
    recipe = load_recipe(path)
    assert recipe.places == (f"{path}:7:1", f"{path}:11:5")
    broken = path.read_text().replace("weight_decay: 1e-4", "weight_decay: -1")
    assert problems(broken, "r.md")[0].startswith("r.md:12:5: SetWeightDecayModifier.weight_decay")


def test_the_saved_text_of_front_matter_is_a_yaml_recipe() -> None:
    recipe = load_recipe(CORPUS / "front_matter.md")
    assert parse_recipe(recipe.text, source="recipe.yaml").modifiers == recipe.modifiers


def test_a_string_may_have_front_matter_or_none() -> None:
    inside = "a: !EpochRangeModifier {start_epoch: 0, end_epoch: 2}\n"
    assert parse_recipe(f"---\n{inside}---\nprose").modifiers == parse_recipe(inside).modifiers


def test_markdown_without_front_matter_is_an_error() -> None:
    assert problems("# Title\n", "r.md") == ["r.md:1:1: no front matter"]


def test_two_documents_in_one_yaml_file_are_an_error() -> None:
    assert problems("---\na: !EpochRangeModifier {end_epoch: 2}\n---\nb: 1\n")


def test_a_file_of_another_kind_is_refused(tmp_path) -> None:
    path = tmp_path / "recipe.txt"
    path.write_text("a: 1")
    with pytest.raises(RecipeError, match="not a recipe file"):
        load_recipe(path)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("a: !EpochRangeModifier {end_epoch: 2}\n", encoding="utf-8-sig")
    assert load_recipe(path).modifiers == (EpochRangeModifier(end_epoch=2),)


def test_a_document_may_be_one_tag() -> None:
    assert load_recipe(CORPUS / "single.yml").modifiers == (EpochRangeModifier(start_epoch=0, end_epoch=5),)


@pytest.mark.parametrize("line", ["!EpochRangeModifier: ", "!pytorch.EpochRangeModifier ", "!EpochRangeModifier # 0.5"])
def test_tags_are_read_however_sparseml_trips_over_them(line: str) -> None:
    recipe = parse_recipe(f"modifiers:\n  - {line}\n    start_epoch: 0.0\n    end_epoch: 2.0\n")
    assert recipe.modifiers == (EpochRangeModifier(start_epoch=0, end_epoch=2),)


# Stages


def test_a_stages_variables_shadow_the_recipes_and_epochs_are_absolute() -> None:
    recipe = load_recipe(CORPUS / "staged.yaml")
    assert recipe.stages == ("dense_stage", "dense_stage", "pruning_stage", "pruning_stage")
    plan = timeline(recipe)
    assert plan.num_epochs == 6
    assert plan.final_sparsity == 0.8
    assert [item.epoch for item in plan.dated] == [2, 3, 4, 5]


def test_stages_are_ordered_by_their_end() -> None:
    stage = "{}:\n  modifiers: [!EpochRangeModifier {{end_epoch: {}}}]\n"
    text = stage.format("late", 9) + stage.format("early", 2)
    assert parse_recipe(text).stages == ("early", "late")


def test_an_override_reaches_every_stage_that_has_the_name() -> None:
    recipe = load_recipe(CORPUS / "staged.yaml", {"sparsity": "0.6", "first_end": "1"})
    assert timeline(recipe).final_sparsity == 0.6
    assert timeline(recipe).num_epochs == 5


def test_an_unknown_override_is_told_the_variables_of_all_stages() -> None:
    with pytest.raises(RecipeError, match=r"no variable 'quux' .* version, sparsity, first_end"):
        load_recipe(CORPUS / "staged.yaml", {"quux": "1"})
    with pytest.raises(RecipeError, match="did you mean 'sparsity'"):
        load_recipe(CORPUS / "staged.yaml", {"sparsty": "0.6"})


def test_modifiers_beside_stages_are_an_error() -> None:
    text = "modifiers: [!EpochRangeModifier {end_epoch: 2}]\ns:\n  modifiers: [!EpochRangeModifier {end_epoch: 2}]\n"
    assert "modifiers beside stages" in problems(text)[0]


# Anchors, expressions, selectors by sparsity


def test_merge_keys_bring_in_what_a_modifier_does_not_say_itself() -> None:
    second = load_recipe(CORPUS / "anchors.yaml").modifiers[1]
    assert isinstance(second, PruningModifier)
    assert (second.start_epoch, second.final_sparsity, second.update_frequency) == (2, 0.8, 1)


def test_merging_what_is_no_mapping_is_an_error() -> None:
    assert any("merges mappings only" in line for line in problems("a: &a 1\nb: {<<: *a}\nmodifiers: []"))


def test_an_alias_repeats_a_modifier_at_a_place_of_its_own() -> None:
    text = "a: &m\n  x_modifiers: [!ConstantPruningModifier {params: a}]\nb: *m\n"
    recipe = parse_recipe(text)
    assert len(set(recipe.places)) == 2


def test_calls_take_keywords_and_numbers_may_be_strings() -> None:
    text = (
        "a: '1e-4'\nmodifiers: [!SetWeightDecayModifier {weight_decay: 'eval(round(-a * -20, ndigits=2) + max(1, 2))'}]"
    )
    assert parse_recipe(text).modifiers[0].weight_decay == 2.0


def test_a_bare_variable_may_be_a_list() -> None:
    text = "p: [a, b]\nmodifiers: [!ConstantPruningModifier {params: eval(p)}]"
    assert parse_recipe(text).modifiers == (ConstantPruningModifier(params=("a", "b")),)


@pytest.mark.parametrize("opening", ["[", "- ", "{a: "])
def test_endless_nesting_is_refused_quickly(opening: str) -> None:
    assert problems("a: \n  " + opening * 1000) == ["r.yaml:1:1: nested more than 50 deep"]


def test_a_long_chain_of_variables_is_refused() -> None:
    chain = "".join(f"a{k}: eval(a{k + 1})\n" for k in range(5000))
    assert "refer to each other" in problems(chain + "modifiers: [!SetWeightDecayModifier {weight_decay: eval(a0)}]")[0]


def test_several_final_sparsities_are_several_modifiers() -> None:
    recipe = load_recipe(CORPUS / "by_sparsity.yaml")
    asked = [(m.final_sparsity, m.params) for m in recipe.modifiers if isinstance(m, PruningModifier)]
    assert asked == [(0.6, ("re:.*qkv.weight",)), (0.9, ("blocks.0.mlp.fc1.weight",))]
    assert [place.split(":")[-2] for place in recipe.places[:2]] == ["6", "7"]


def test_a_modifier_that_starts_from_the_weights_own_zeros_is_dated_by_how_far_it_has_grown() -> None:
    plan = timeline(load_recipe(CORPUS / "anchors.yaml"))
    grown = [item.action.grown for item in plan.dated if isinstance(item.action, Prune)]
    assert grown == pytest.approx([0, 0.875, 1, 0, 0.875, 1])


def test_freezing_begins_and_ends() -> None:
    plan = timeline(load_recipe(CORPUS / "by_sparsity.yaml"))
    trains = [(item.epoch, item.action.ends) for item in plan.dated if isinstance(item.action, Train)]
    assert trains == [(1, False), (2, True)]


# Dialects


def test_cap_means_a_saw_tooth_where_sparseml_means_one_ramp() -> None:
    text = (CORPUS / "cap.yaml").read_text()
    cap = timeline(parse_recipe(text))
    assert [cap.learning_rate(e, 0.1) for e in (0, 19.9, 20, 99.9)] == pytest.approx([5e-4, 1e-5, 2.5e-4, 1e-5 / 16])
    plain = text.replace("dialect: cap\n", "").replace("    cycle_mul: 0.5\n", "")
    sparseml = timeline(parse_recipe(plain))
    assert sparseml.learning_rate(20, 0.1) == pytest.approx(5e-4 - 0.2 * 4.9e-4, rel=1e-2)


def test_a_cycle_of_cap_is_the_whole_range_unless_told() -> None:
    text = (CORPUS / "cap.yaml").read_text().replace("    cycle_epochs: 20\n", "")
    assert timeline(parse_recipe(text)).learning_rate(99.9, 0.1) == pytest.approx(1e-5)


def test_keys_of_caps_cycles_need_a_cycle() -> None:
    text = (CORPUS / "cap.yaml").read_text().replace("dialect: cap\n", "")
    assert any("cycle_mul without a cycle: lr_func linear" in line for line in problems(text))


def test_warmup_climbs_to_the_peak_of_each_cycle() -> None:
    text = (CORPUS / "cap.yaml").read_text().replace("cycle_mul: 0.5", "warmup: 2")
    plan = timeline(parse_recipe(text))
    assert plan.learning_rate(20, 0.5) == pytest.approx(0, abs=1e-9)
    assert plan.learning_rate(21, 0.5) == pytest.approx(plan.learning_rate(1, 0.5))
    assert plan.learning_rate(22, 0.5) > plan.learning_rate(21, 0.5)


@pytest.mark.parametrize(
    ("function", "rates"),
    [("exponential", [0.1, 0.1 * 0.5**0.5, 0.05, 0.02]), ("step", [0.1, 0.1, 0.05, 0.02])],
)
def test_cap_decays_down_to_the_final_rate(function: str, rates: list[float]) -> None:
    text = f"""dialect: cap
modifiers:
  - !LearningRateFunctionModifier
    {{lr_func: {function}, init_lr: 0.1, final_lr: 0.02, start_epoch: 0, end_epoch: 8, decay_rate: 0.5}}
"""
    plan = timeline(parse_recipe(text))
    assert [plan.learning_rate(epoch, 0.5) for epoch in (0, 0.5, 1, 6)] == pytest.approx(rates)


def test_an_unknown_dialect_is_an_error() -> None:
    assert "dialect must be sparseml or cap" in problems("dialect: tensorflow\nmodifiers: []")[0]


def test_modifiers_in_a_mapping_are_read_as_ours() -> None:
    recipe = load_recipe(CORPUS / "untagged.json")
    first = recipe.modifiers[0]
    assert isinstance(first, PruningModifier)
    assert (first.params, first.final_sparsity, first.start_epoch, first.mask_type) == (
        ("re:.*weight",),
        0.5,
        0,
        "unstructured",
    )
    assert isinstance(recipe.modifiers[1], ConstantPruningModifier)


def test_a_mapping_that_prunes_globally_is_global_magnitude() -> None:
    text = """pruning_modifiers:
  MagnitudePruningModifier:
    {init_sparsity: 0.1, final_sparsity: 0.5, start: 0, end: 4, update: 1, targets: x, update_scheduler: linear,
     apply_globally: true, leave_enabled: true}
"""
    (modifier,) = parse_recipe(text).modifiers
    assert isinstance(modifier, GlobalMagnitudePruningModifier)
    assert (modifier.inter_func, modifier.update_frequency) == ("linear", 1)


def test_a_mappings_unsupported_modifier_is_refused_at_its_place() -> None:
    text = "my_stage:\n  pruning_modifiers:\n    GPTQModifier:\n      scheme: W4A16\n"
    assert problems(text)[0].startswith("r.yaml:3:5: !GPTQModifier is not supported yet; use !Quantization")


def test_a_mappings_update_frequency_by_the_wrong_name_is_not_dropped() -> None:
    text = "m_modifiers:\n  ConstantPruningModifier: {targets: x, frequency: 1}\n"
    assert "unknown key" in problems(text)[0]


# Masks and tags


@pytest.mark.parametrize(
    ("spelling", "read"),
    [
        ("unstructured", "unstructured"),
        ("block4", "1x4"),
        ("tensorrt", "2:4"),
        ("1:4", "1:4"),
        ([4, 1], "4x1"),
        ([-1, 1], "-1x1"),
    ],
)
def test_mask_types_have_one_spelling(spelling, read: str) -> None:
    assert mask_types.canonical(spelling) == read
    assert mask_types.parse(read).sparsity in (None, 0.5, 0.75)


@pytest.mark.parametrize("spelling", ["4:4", "0:4", "5:4", "blocks", [0, 1], [1], 3, None, "2:4x1"])
def test_other_mask_types_are_errors(spelling) -> None:
    with pytest.raises(ValueError, match="must be unstructured, block4"):
        mask_types.canonical(spelling)


@pytest.mark.parametrize(
    ("dialect", "keys", "sparsity", "mask"),
    [
        ("sparseml", "mask_type: '1:4'", 0.75, "1:4"),
        ("cap", "mask_type: '1:4'", 0.25, "3:4"),
        ("cap", "mask_type: N:M\n    n: 1\n    m: 4", 0.25, "3:4"),
        ("sparseml", "mask_type: block4", 0.5, "1x4"),
        ("sparseml", "mask_type: [4, 1]", 0.5, "4x1"),
    ],
)
def test_masks_are_read_as_the_dialect_means_them(dialect: str, keys: str, sparsity: float, mask: str) -> None:
    body = PRUNE.replace("init_sparsity: 0", f"init_sparsity: {sparsity}").replace("0.5", str(sparsity))
    (modifier,) = parse_recipe(f"dialect: {dialect}\nm_modifiers:\n  - !OBSPruningModifier{body}    {keys}\n").modifiers
    assert isinstance(modifier, PruningModifier)
    assert modifier.mask_type == mask


def test_a_mask_we_cannot_prune_to_is_refused() -> None:
    (told,) = problems(f"m_modifiers:\n  - !OBCPruningModifier{PRUNE}    mask_type: [4, 1]\n")
    assert ".mask_type: 4x1 is not supported here; use unstructured or N:M or 1xG" in told


@pytest.mark.parametrize(
    ("tag", "keys", "told"),
    [
        ("GMPruningModifier", "allocation: erk\n    price: flops", "price has no meaning with erk shares"),
        (
            "GMPruningModifier",
            "allocation: erk\n    global_sparsity: true",
            "allocation erk needs global_sparsity: false",
        ),
        ("GMPruningModifier", "allocation: hull", "allocation"),
        ("OViTPruningModifier", "min_sparsity: 0.2", "init_sparsity 0 is below min_sparsity 0.2"),
        ("OViTPruningModifier", "max_sparsity: 0.4", "final_sparsity 0.5 is above max_sparsity 0.4"),
        ("OViTPruningModifier", "max_sparsity: {head: 2}", "less than or equal to 1"),
        ("OViTPruningModifier", "price: latency", "price"),
    ],
)
def test_allocations_that_cannot_be_are_refused(tag: str, keys: str, told: str) -> None:
    assert any(told in line for line in problems(f"m_modifiers:\n  - !{tag}{PRUNE}    {keys}\n"))


def test_a_mask_that_fixes_every_layer_leaves_nothing_to_allocate() -> None:
    body = PRUNE.replace("init_sparsity: 0", "init_sparsity: 0.5") + "    mask_type: '2:4'\n"
    for key in ("allocation: erk", "max_sparsity: 0.9"):
        (told,) = problems(f"m_modifiers:\n  - !OViTPruningModifier{body}    {key}\n")
        assert "2:4 gives every layer the same sparsity: remove allocation and bounds" in told


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("leave_enabled: False", "grow back"),
        ("phased: True", "phased"),
        ("score_type: movement", "score_type"),
        ("update_frequency: -2", "every step"),
    ],
)
def test_what_would_change_the_result_is_refused(key: str, told: str) -> None:
    name = key.split(":")[0]
    body = "\n".join(line for line in PRUNE.splitlines() if name not in line)
    assert any(told in line for line in problems(f"m_modifiers:\n  - !GMPruningModifier{body}\n    {key}\n"))


def test_a_schedule_of_endless_prunings_is_refused() -> None:
    text = f"m_modifiers:\n  - !GMPruningModifier{PRUNE}".replace("frequency: 1", "frequency: 1e-12")
    assert "more than 100,000 prunings" in problems(text)[0]


def test_a_tag_is_either_supported_or_refused_with_a_remedy() -> None:
    assert not MODIFIERS.keys() & tags.NOT_YET.keys()


def test_a_known_tag_is_told_apart_from_an_unknown_one() -> None:
    assert "!GPTQModifier is not supported yet" in problems("m_modifiers: [!GPTQModifier {}]")[0]
    assert "unknown modifier !QuantisationModifier" in problems("m_modifiers: [!QuantisationModifier {}]")[0]


@pytest.mark.parametrize("settings", ["{gamma: 0.5}", "{gamma: 0.5, step_size: 1, lr_min: 0}", "{}"])
def test_a_scheduler_takes_just_its_own_settings(settings: str) -> None:
    text = f"m_modifiers: [!LearningRateModifier {{lr_class: StepLR, lr_kwargs: {settings}, init_lr: 0.1}}]"
    assert "lr_kwargs of StepLR are gamma, step_size" in problems(text)[0]


def test_a_learning_rate_may_be_a_string() -> None:
    keys = "{lr_func: cosine, init_lr: '1e-3', final_lr: 0, start_epoch: 0, end_epoch: 3}"
    (modifier,) = parse_recipe(f"m_modifiers: [!LearningRateFunctionModifier {keys}]").modifiers
    assert isinstance(modifier, LearningRateFunctionModifier)
    assert modifier.init_lr == 1e-3
