"""``ovit-deploy recipe``: what each command prints, and how it exits."""

import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ovit_deploy.cli import main
from ovit_deploy.recipe.load import load_recipe, parse_recipe

CORPUS = Path(__file__).parents[1] / "recipe" / "corpus"
MODEL = ("--model", "vit_tiny_patch16_224")
WRONG = """modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}
  - !GMPruningModifier
    params: ['re:.*attn.(qkv|q).weight']
    init_sparsity: 0.5
    final_sparsity: 0.8
    start_epoch: 0
    end_epoch: 3
    update_frequency: 1
"""


@pytest.fixture
def ovit(capsys, monkeypatch, tmp_path):
    """Runs a command in an empty folder and gives its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            main(["recipe", *arguments])
        except SystemExit as left:
            code = int(left.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_lint_of_a_shipped_recipe_finds_nothing(ovit) -> None:
    code, out, _ = ovit("lint", "deit_75", *MODEL)
    assert (code, out.splitlines()[0]) == (0, "0 errors, 0 warnings, 0 notes")


def test_lint_tells_place_severity_and_code_and_fails_on_errors(ovit, tmp_path) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG)
    code, out, _ = ovit("lint", "wrong.yaml", *MODEL)
    assert code == 1
    assert "wrong.yaml:3:5: error [past-end] GMPruningModifier lasts to epoch 3" in out
    assert "wrong.yaml:3:5: warning [dead-alternative] the branch 'q'" in out
    assert out.splitlines()[-1] == "1 error, 1 warning, 1 note"


def test_lint_for_machines(ovit, tmp_path) -> None:
    (tmp_path / "broken.yaml").write_text("modifiers:\n  - !GPTQModifier {start_epoch: 0}\n")
    code, out, _ = ovit("lint", "broken.yaml", "--json")
    assert code == 1
    (finding,) = json.loads(out)
    assert (finding["place"], finding["severity"], finding["code"]) == ("broken.yaml:2:5", "error", "invalid")


def test_plan_dates_every_event_and_counts_what_is_left(ovit) -> None:
    code, out, _ = ovit("plan", "deit_75", *MODEL, "--steps-per-epoch", "79")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["4", "316", "prune", "OViT", "to", "75.00%", "48", "0.0005"] in rows
    assert "1,327,104 of 5,308,416 weights in 48 pruned tensors are left (75.00% zeros)" in out


def test_plan_for_machines_knows_steps_stages_and_rates(ovit) -> None:
    _, out, _ = ovit("plan", str(CORPUS / "staged.yaml"), "--steps-per-epoch", "10", "--json")
    told = json.loads(out)
    assert told["pruned"] is None
    pruned = [event for event in told["events"] if event["action"] == "prune"]
    assert [(event["epoch"], event["step"], event["stage"]) for event in pruned] == [
        (2, 20, "pruning_stage"),
        (3, 30, "pruning_stage"),
        (4, 40, "pruning_stage"),
        (5, 50, "pruning_stage"),
    ]
    assert {event["learning_rate"] for event in told["events"]} == {1e-3}


@pytest.mark.parametrize("given", ["sparsity=0.9", "first_end=2,sparsity=0.9", '{"sparsity": 0.9, "first_end": 2}'])
def test_plan_takes_variables_of_every_stage(ovit, given: str) -> None:
    _, out, _ = ovit("plan", str(CORPUS / "staged.yaml"), "--recipe-arg", given)
    assert "GM to 90.00%" in out


def test_an_unknown_variable_is_told_the_nearest(ovit) -> None:
    code, _, error = ovit("plan", str(CORPUS / "staged.yaml"), "--recipe-arg", "sparsty=0.9")
    assert code == 1
    assert "did you mean 'sparsity'?" in error


def test_plan_draws_a_picture(ovit, tmp_path) -> None:
    ovit("plan", str(CORPUS / "cap.yaml"), "--plot", "plan.svg")
    root = ElementTree.parse(tmp_path / "plan.svg").getroot()
    drawn = [line.attrib["points"].split() for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    stairs, saw = ([tuple(map(float, pair.split(","))) for pair in points] for points in drawn)
    assert len({y for _, y in stairs}) == 6  # dense, then 0.4 to 0.9 in five prunings
    assert all(0 <= x <= 720 and 0 <= y <= 360 for x, y in [*stairs, *saw])
    assert sum(later[1] < earlier[1] for earlier, later in pairwise(saw)) == 4


def test_plan_refuses_an_epoch_without_steps(ovit) -> None:
    code, _, err = ovit("plan", "deit_75", "--steps-per-epoch", "0")
    assert code == 1
    assert "--steps-per-epoch 0: not a number of steps" in err


def test_schema_names_every_modifier(ovit) -> None:
    code, out, _ = ovit("schema")
    schema = json.loads(out)
    assert code == 0
    assert {"OViTPruningModifier", "EpochRangeModifier", "Training"} <= schema["$defs"].keys()
    assert schema["$defs"]["OViTPruningModifier"]["additionalProperties"] is False
    sparsity = schema["$defs"]["GMPruningModifier"]["properties"]["init_sparsity"]["anyOf"]
    assert {"type": "string", "pattern": r"^eval\(.*\)$"} in sparsity


def test_schema_tells_an_editor_its_tags(ovit) -> None:
    _, out, _ = ovit("schema", "--tags")
    assert "!OViTPruningModifier mapping" in json.loads(out)


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_migrate_prints_the_same_recipe_in_our_words(ovit, path: Path) -> None:
    code, out, _ = ovit("migrate", str(path))
    assert code == 0
    assert parse_recipe(out, source="new.yaml").modifiers == load_recipe(path).modifiers


def test_migrate_keeps_the_comment_at_the_top(ovit) -> None:
    _, out, _ = ovit("migrate", str(CORPUS / "cap.yaml"))
    assert out.startswith("# A saw tooth of 20 epochs, as the authors of CAP write it.\n")
    assert 'lr_func: "cyclic_linear"' in out


def test_migrate_takes_the_dialect_of_a_recipe_that_does_not_say_it(ovit, tmp_path) -> None:
    text = (CORPUS / "cap.yaml").read_text().replace("dialect: cap\n", "")
    (tmp_path / "old.yaml").write_text(text)
    assert ovit("migrate", "old.yaml")[0] == 1
    code, out, _ = ovit("migrate", "old.yaml", "--dialect", "cap")
    assert code == 0
    assert parse_recipe(out).modifiers == load_recipe(CORPUS / "cap.yaml").modifiers
