import pytest

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.augmentation import PRESETS, Augmentation
from ovit_deploy.recipe.json_schema import json_schema
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.write import write

END = "\nmodifiers: [!EpochRangeModifier {start_epoch: 0, end_epoch: 1}]\n"


def augmentation(said: str, more: str = "") -> Augmentation:
    return parse_recipe(f"training: {{augmentation: {said}{more}}}{END}").training.augmentation


def test_a_preset_is_its_name() -> None:
    light, deit = augmentation("light1"), augmentation("deit")
    assert (light.rand_augment, light.mixes, light.erasing) == ("rand-m0-n2-inc1", False, 0)
    assert (deit.mixup, deit.cutmix, deit.erasing, deit.drop_path, deit.repeats) == (0.8, 1.0, 0.25, 0.1, 3)


@pytest.mark.parametrize("name", PRESETS)
def test_each_field_of_a_preset_can_be_said_otherwise(name) -> None:
    plain, other = augmentation(name), augmentation(f"{{preset: {name}, mixup: 0.3, crop_padding: 2}}")
    assert (other.mixup, other.crop_padding) == (0.3, 2)
    assert other.model_copy(update={"mixup": plain.mixup, "crop_padding": None}) == plain


def test_fields_alone_are_as_before() -> None:
    assert augmentation("{crop_padding: 4}") == Augmentation(crop_padding=4)


def test_a_preset_is_written_and_read_back() -> None:
    recipe = parse_recipe("training: {augmentation: {preset: medium2, mixup: 0.1}}" + END)
    assert parse_recipe(write(recipe)).training == recipe.training


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("light9", "'light1', 'light2'"),
        ("{preset: heavy}", "'light1', 'light2'"),
        ("{rand_augment: rand-m9-magic}", "rand_augment"),
        ("{mixup: -1}", "greater than or equal to 0"),
        ("deit, batch_size: 3", "make batch_size even"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(said, told) -> None:
    with pytest.raises(RecipeError) as refused:
        augmentation(said)
    assert told in str(refused.value)


def test_odd_batches_that_add_up_to_pairs_are_mixed() -> None:
    assert augmentation("deit", ", batch_size: 3, accumulation_steps: 2").mixes


def test_editors_are_told_of_presets_and_fields() -> None:
    schema = json_schema()
    asked = schema["$defs"]["Training"]["properties"]["augmentation"]["anyOf"][0]["anyOf"]
    assert asked == [{"$ref": "#/$defs/Augmentation"}, {"enum": list(PRESETS)}]
    assert "mixup" in schema["$defs"]["Augmentation"]["properties"]
