"""Whatever a recipe file holds, reading it gives a recipe or a `RecipeError`: no other exception, and no hang."""

from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.lint import lint
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.planning import events
from ovit_deploy.recipe.schema import MODIFIERS
from ovit_deploy.recipe.tags import NOT_YET
from ovit_deploy.recipe.timeline import timeline
from ovit_deploy.recipe.write import write

SEEDS = [path.read_text() for path in sorted((Path(__file__).parent / "corpus").iterdir())]
SHAPES = {"blocks.0.attn.qkv.weight": (24, 8), "blocks.0.attn.qkv.bias": (24,), "head.weight": (10, 8)}
PIECES = [
    *("!", "&a ", "*a", "<<: *a", "- ", ": ", "{", "}", "[", "]", "|", ">", "%"),
    *("---\n", "...\n", "\n", "\t", "\x00", "\ud7ff"),
    *("eval(", ")", "eval(a)", "eval(-a ** 9)", "nan", "-.inf", "1e999", "-1", "0", "9" * 30, "~", "true"),
    *("'", '"', "? ", "__ALL__", "__FROM_PARAM__", "re:(", "re:(?P<n>a|b)(?P=n)", "2:4", "N:M"),
    *("dialect: cap\n", "modifiers", "stage:\n"),
]
ENDINGS = ("recipe", "r.yaml", "r.yml", "r.md", "r.json")
LIMITS = settings(
    max_examples=120, deadline=timedelta(seconds=30), suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def is_read_or_refused(text: str, source: str) -> None:
    try:
        recipe = parse_recipe(text, source=source)
    except RecipeError as error:
        assert error.message.startswith(source)
        assert lint_errors(text, source)
        return
    assert timeline(recipe).num_epochs >= 0
    assert events(recipe, steps_per_epoch=7)
    assert parse_recipe(write(recipe)).modifiers == recipe.modifiers
    lint(text, source=source, shapes=SHAPES, steps_per_epoch=7)


def lint_errors(text: str, source: str) -> bool:
    try:
        return any(finding.severity == "error" for finding in lint(text, source=source, shapes=SHAPES))
    except RecipeError:
        return True  # no front matter: there is no recipe to lint


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A recipe of the corpus with some pieces cut out, doubled or put in."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        middle = draw(st.sampled_from(PIECES) | st.just(text[start:end] * 2) | st.text(max_size=5))
        text = text[:start] + middle + text[end:]
    return text


KEYS = sorted({key for kind in MODIFIERS.values() for key in kind.model_fields} | {"n", "m", "targets", "start"})
SCALARS = st.sampled_from(PIECES[19:]) | st.floats().map(str) | st.integers().map(str) | st.just("cosine")


def in_brackets(parts: list[str]) -> str:
    return f"[{', '.join(parts)}]"


def in_braces(parts: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in parts.items()) + "}"


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(in_brackets) | st.dictionaries(SCALARS, inner, max_size=2).map(in_braces)
    ),
    max_leaves=4,
)


@st.composite
def assembled(draw: st.DrawFn) -> str:
    """Modifiers with keys that exist and values that may not make sense."""
    lines = [f"dialect: {draw(st.sampled_from(['sparseml', 'cap']))}", f"a: {draw(VALUES)}", "x_modifiers:"]
    for _ in range(draw(st.integers(1, 3))):
        lines.append(f"  - !{draw(st.sampled_from(sorted([*MODIFIERS, *NOT_YET])))}")
        keys = draw(st.lists(st.sampled_from(KEYS), max_size=8, unique=True))
        lines += [f"    {key}: {draw(VALUES)}" for key in keys]
    return "\n".join(lines)


@LIMITS
@given(text=mutated(), source=st.sampled_from(ENDINGS))
@example(text="a: &a {<<: *a}", source="r.yaml")
@example(text="a: &a [*a]\nmodifiers: *a", source="r.yaml")
@example(text="!" * 300, source="r.yaml")
@example(text="[" * 2000, source="r.yaml")
@example(text="- " * 5000, source="r.yaml")
@example(text="? [a, {b: c}]\n: 1\nmodifiers: []", source="r.yaml")
@example(text="modifiers: [!SetWeightDecayModifier {weight_decay: 'eval((-1) ** 0.5)'}]", source="r.yaml")
@example(text="modifiers: [!EpochRangeModifier {end_epoch: 1e308}]", source="r.yaml")
@example(text="modifiers: [!A {x: !B {y: 1}}]", source="r.yaml")
@example(text="modifiers: [!EpochRangeModifier {end_epoch: !B {y: 1}}]", source="r.yaml")
def test_a_damaged_recipe_is_read_or_refused(text: str, source: str) -> None:
    is_read_or_refused(text, source)


@LIMITS
@given(text=assembled())
def test_modifiers_with_any_values_are_read_or_refused(text: str) -> None:
    is_read_or_refused(text, "r.yaml")


@LIMITS
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    is_read_or_refused(text, "recipe")
