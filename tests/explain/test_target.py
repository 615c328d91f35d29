"""Sparsities of layers for a time: a made-up latency table, real gradients, a real run."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ovit_deploy import models
from ovit_deploy.cli import app
from ovit_deploy.cli.target import goal_of
from ovit_deploy.data import load_data
from ovit_deploy.errors import OvitError, PruningError, RecipeError
from ovit_deploy.explain.picture import figure
from ovit_deploy.explain.pieces import LAYERS
from ovit_deploy.explain.session import Bench, Timed
from ovit_deploy.explain.table import Table
from ovit_deploy.explain.target import Aim, Goal, aim, measurable
from ovit_deploy.finetune.run import run
from ovit_deploy.recipe import load_recipe

ONESHOT = """
modifiers:
  - !{tag}
    params: ["re:{params}"]
    init_sparsity: {first}
    final_sparsity: 0.75
    start_epoch: 0
    end_epoch: {end}
    update_frequency: 0.5
    num_grads: 40{more}
training: {{batch_size: 16}}
"""
BLOCKS = r"blocks\\..*(qkv|proj|fc1|fc2).weight"
LEVELS = (0.5, 0.75, 0.9)
# The MLP saves more than attention; nothing of what proj would save is worth its name.
WORTH_MS = {"attn.qkv": 1.0, "attn.proj": 0.01, "mlp.fc1": 2.0, "mlp.fc2": 2.0}
TABLE = Table(
    20.0,
    {
        f"blocks.{block}.{layer}.weight": {s: s * WORTH_MS[layer] for s in LEVELS}
        for block in (0, 1)
        for layer in LAYERS
    },
)


def recipe_of(folder: Path, *, tag="OViTPruningModifier", params=BLOCKS, first=0.75, end=0, more="") -> Path:
    path = folder / "oneshot.yaml"
    path.write_text(ONESHOT.format(tag=tag, params=params, first=first, end=end, more=more))
    return path


def aimed_at(target_ms: float, folder: Path, **recipe) -> Aim:
    choice = models.choose(None, checkpoint=folder / "dense.safetensors", pretrained=False)
    data = load_data(str(folder / "images"))
    choice = models.completed(choice, classes=data.classes, channels=data.channels)
    goal = Goal("deepsparse", target_ms, LEVELS)
    return aim(load_recipe(recipe_of(folder, **recipe)), choice, data, TABLE, goal)


@pytest.mark.parametrize(("first", "end"), [(0.75, 0), (0.3, 1)], ids=["one-shot", "gradual"])
def test_a_run_by_the_plan_has_its_sparsity_in_every_layer(workplace, tmp_path, first, end) -> None:
    found = aimed_at(14.0, workplace, first=first, end=end)
    assert found.plan.ms <= 14.0
    again = tmp_path / "again.yaml"
    again.write_text(found.recipe.text)
    choice = models.choose(None, checkpoint=workplace / "dense.safetensors", pretrained=False)
    finished = run(load_recipe(again), choice, load_data(str(workplace / "images")), name="aimed", runs=tmp_path)
    layers = finished.facts["sparsity"]["layers"]
    assert layers == pytest.approx(found.plan.sparsities, abs=1e-3)
    assert len(set(found.plan.sparsities.values())) > 1


def test_the_plan_lies_on_the_front_or_below_and_less_time_costs_more_loss(workplace) -> None:
    loose, tight = aimed_at(17.0, workplace), aimed_at(13.0, workplace)
    assert tight.plan.loss > loose.plan.loss
    slower_points = [plan.loss for plan in loose.front if plan.ms <= loose.plan.ms]
    assert loose.plan.loss <= min(slower_points) + 1e-12
    picture = figure(loose.front, loose.plan, 17.0, "a title", measured_ms=16.0)
    words = [text.text for text in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert {"a title", "target 17 ms", "measured 16 ms"} <= set(words)


@pytest.mark.parametrize(
    ("target_ms", "told"), [(5.0, "5 ms cannot be reached: the fastest .* is 10.98 ms"), (25.0, "need no pruning")]
)
def test_times_out_of_reach_are_refused_before_gradients_are_taken(workplace, target_ms, told) -> None:
    with pytest.raises(PruningError, match=told):
        aimed_at(target_ms, workplace)


@pytest.mark.parametrize(
    ("recipe", "error", "told"),
    [
        ({"params": "head.weight"}, RecipeError, "head.weight is pruned, but the latency"),
        ({"tag": "GWProdPruningModifier"}, RecipeError, "predicts no loss of layers"),
        ({"more": "\n    max_sparsity: 0.9"}, RecipeError, "bounds on sparsity"),
        ({"more": "\n    mask_type: '2:4'", "first": 0.5}, OvitError, "2:4"),
    ],
)
def test_recipes_whose_layers_cannot_be_chosen_for_are_refused(workplace, recipe, error, told) -> None:
    shapes = models.shapes(models.choose(None, checkpoint=workplace / "dense.safetensors", pretrained=False))
    with pytest.raises(error, match=told):
        measurable(load_recipe(recipe_of(workplace, **recipe)), Goal("onnxruntime", 5.0), shapes)


@pytest.mark.parametrize(("text", "ms"), [("12ms", 12.0), ("0.5s", 500.0), ("250 us", 0.25), ("7", 7.0)])
def test_times_have_units(text, ms) -> None:
    assert goal_of(text, "onnxruntime", None).target_ms == pytest.approx(ms)


@pytest.mark.parametrize("text", ["fast", "-3ms", "0", "12 hours"])
def test_what_is_no_time_is_refused(text) -> None:
    with pytest.raises(OvitError, match="not a time"):
        goal_of(text, "onnxruntime", None)


def test_a_sweep_has_no_target() -> None:
    with pytest.raises(OvitError, match="--target-latency with --sweep"):
        app(["prune", "--recipe", "oneshot_ovit", "--target-latency", "1ms", "--sweep", "0.5"], exit_on_error=False)


@pytest.mark.slow
def test_the_whole_way_from_a_time_to_the_timed_export(workplace, monkeypatch, tmp_path, capsys) -> None:
    """Only the times of pieces are made up: ONNX Runtime gains nothing from zeros, no engine does from 32 channels."""

    def made_up(_: Bench, wanted: list[Timed]) -> dict[str, list[float]]:
        saved = {
            one: sum(z * WORTH_MS[layer] for z, layer in zip(one.piece.zeros, LAYERS, strict=True)) for one in wanted
        }
        return {str(one): [2 + len(one.piece.blocks) * (9 - saved[one])] * 6 for one in wanted}

    monkeypatch.setattr(Bench, "_measure", made_up)
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path))
    monkeypatch.chdir(workplace)
    recipe_of(workplace)
    given = [
        "--recipe",
        "oneshot.yaml",
        "--checkpoint",
        "dense.safetensors",
        "--data",
        "images",
        "--levels",
        "0.5,0.75,0.9",
    ]
    goal = ["--target-latency", "14ms", "--engine", "onnxruntime", "--name", "aimed", "--json"]
    app(["prune", *given, *goal], exit_on_error=False, result_action="return_value")
    told = json.loads((workplace / "runs" / "aimed" / "latency.json").read_text())
    assert told["table"]["dense_ms"] == pytest.approx(20)
    assert told["plan"]["ms"] <= 14
    facts = json.loads((workplace / "runs" / "aimed" / "run.json").read_text())
    assert facts["sparsity"]["layers"] == pytest.approx(told["plan"]["sparsities"], abs=1e-3)
    measured_ms = told["measured"]["sparse"]["latency"]["median_ms"]
    assert 0 < measured_ms < 14
    printed = capsys.readouterr()
    assert json.loads(printed.out) == told
    assert f"target 14 ms: reached; measured {measured_ms:.4g} ms" in printed.err
    ElementTree.parse(workplace / "runs" / "aimed" / "latency.svg")
