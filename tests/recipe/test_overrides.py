import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.overrides import read_overrides

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, {}),
        ("epochs=10", {"epochs": "10"}),
        ("epochs = 10, lr=1e-4", {"epochs": "10", "lr": "1e-4"}),
        ("epochs: 10,lr: 1e-4", {"epochs": "10", "lr": "1e-4"}),
        ("where=re:blocks.*(a,b).weight,epochs=3", {"where": "re:blocks.*(a,b).weight", "epochs": "3"}),
        ('{"epochs": 10, "name": "a, b=c", "on": true}', {"epochs": "10", "name": "a, b=c", "on": "true"}),
        ({"epochs": 2.5}, {"epochs": "2.5"}),
        ("name=", {"name": ""}),
    ],
)  # fmt: skip
def test_three_ways_to_write_them(given, read) -> None:
    assert read_overrides(given) == read


@pytest.mark.parametrize("given", ["epochs", "", "=3", "3=4", "{epochs: 3}", '{"a": ', '{"a": [1]}', {"a": {}}])
def test_anything_else_is_an_error_with_an_example(given) -> None:
    with pytest.raises(RecipeError):
        read_overrides(given)


@given(st.dictionaries(NAMES, st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()))
def test_a_mapping_as_json_or_as_pairs_is_the_same(values) -> None:
    told = read_overrides(values)
    assert read_overrides(json.dumps(values)) == told
    if values:
        assert read_overrides(",".join(f"{name}={text}" for name, text in told.items())) == told


def test_the_value_reaches_the_recipe() -> None:
    text = "end: 3\nmodifiers: [!EpochRangeModifier {end_epoch: eval(end * 2)}]"
    for given_ in ("end=4", '{"end": 4}', {"end": 4}):
        assert parse_recipe(text, overrides=read_overrides(given_)).modifiers[0].end_epoch == 8
