import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from ovit_deploy.accuracy import Accuracy
from ovit_deploy.compare import methods as known
from ovit_deploy.compare.cells import DENSE, Cell, Journal
from ovit_deploy.compare.methods import DEFAULT, METHODS
from ovit_deploy.compare.recover import Recovery
from ovit_deploy.compare.subject import Subject, subject_of
from ovit_deploy.data import load_data
from ovit_deploy.errors import OvitError, RecipeError
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.models import choose
from ovit_deploy.pruning import Spread, apply
from ovit_deploy.recipe.load import parse_recipe

SMALL = ("--num-grads", "40", "--set", "ovit.block_size=32")
TRAINING = """
num_epochs: 9
training: {batch_size: 16, augmentation: {crop_padding: 1}}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: eval(num_epochs)}
  - !SetLearningRateModifier {start_epoch: 0, learning_rate: 1e-3}
"""


@pytest.fixture
def subject(workplace) -> Subject:
    choice = choose(None, checkpoint=workplace / "dense.safetensors", pretrained=False)
    return subject_of(choice, load_data(str(workplace / "images")), targets=(), num_images=40, seed=0)


@pytest.fixture
def all_methods(workplace, ovit) -> dict:
    """What a comparison of all methods wrote, once for all tests."""
    if not (workplace / "all/results.json").exists():
        ovit("compare", *SMALL, "--set", "woodfisher.damping=1e-4", "--sparsities", "0.75,0.5", "--out", "all")
    return json.loads((workplace / "all/results.json").read_text())


def test_every_method_has_a_cell_at_every_sparsity_with_exactly_its_zeros(all_methods) -> None:
    assert all_methods["failures"] == []
    first, *cells = all_methods["cells"]
    assert (first["method"], first["zeros"], first["measured_loss"]) == (DENSE, 0, 0)
    assert [(cell["method"], cell["sparsity"]) for cell in cells] == [
        (name, s) for name in DEFAULT for s in (0.5, 0.75)
    ]
    for cell in cells:
        assert cell["zeros"] == pytest.approx(cell["sparsity"], abs=1e-6)
        assert cell["images"] == 20
        assert tuple(cell["interval95"]) == Accuracy(cell["correct"], 20).interval
        assert cell["seconds"] >= cell["shared_seconds"] >= 0
        assert cell["peak_bytes"] > cell["extra_bytes"] >= 0


@pytest.mark.parametrize("name", ["ovit", "magnitude", "sparsegpt"])
def test_a_cell_is_what_the_method_gives_by_itself(all_methods, subject, name) -> None:
    cell = next(cell for cell in all_methods["cells"] if (cell["method"], cell["sparsity"]) == (name, 0.75))
    method = type(METHODS[name])(**cell["settings"] | {"spread": Spread(**cell["settings"]["spread"])})
    pruned = method.prune(subject.model, subject.masks, sparsity=0.75, calibration=subject.calibration)
    apply(subject.model, pruned)
    assert cell["predicted_loss"] == (pruned.predicted_loss and pytest.approx(pruned.predicted_loss, rel=1e-5))
    assert cell["correct"] == evaluate(subject.model, subject.test).accuracy.correct
    loss = evaluate(subject.model, subject.calibration.batches()).loss
    assert cell["measured_loss"] == pytest.approx(loss - subject.loss, abs=1e-6)


def test_results_say_what_they_are_of_and_hold_no_path_of_the_machine(all_methods, workplace) -> None:
    text = json.dumps(all_methods)
    assert str(workplace) not in text and str(Path.home()) not in text and os.getcwd() not in text  # noqa: PTH109
    assert all_methods["subject"]["weights_sha256"]
    assert all_methods["command"].startswith("ovit-deploy compare --checkpoint dense.safetensors --data images")


def test_the_figure_draws_every_method(all_methods, workplace) -> None:
    root = ElementTree.parse(workplace / "all/figure.svg").getroot()
    drawn = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(drawn) == len(DEFAULT)
    assert "prefers-color-scheme:dark" in ElementTree.tostring(root, encoding="unicode")


def test_a_study_goes_on_where_it_stopped(ovit, workplace) -> None:
    journal, arguments = workplace / "stopped/cells.jsonl", ("--methods", "ovit,magnitude", "--out", "stopped", *SMALL)
    ovit("compare", *arguments, "--sparsities", "0.5,0.75")
    whole = journal.read_text()
    lines = whole.splitlines(keepends=True)
    journal.write_text("".join(lines[:3]) + lines[3][:20])  # killed while the third cell was written
    ovit("compare", *arguments, "--sparsities", "0.5,0.75")
    again = journal.read_text().splitlines(keepends=True)
    assert again[:3] == lines[:3]
    timeless = [[{**json.loads(line), **dict.fromkeys(TIMES)} for line in text[1:]] for text in (lines, again)]
    for cell in timeless[0] + timeless[1]:
        cell["details"].pop("seconds", None)
    assert timeless[0] == timeless[1]
    ovit("compare", *arguments, "--sparsities", "0.5,0.75")
    assert journal.read_text().splitlines(keepends=True) == again


TIMES = ("seconds", "shared_seconds", "peak_bytes", "extra_bytes")


@pytest.mark.parametrize(
    ("changed", "told"), [(("--seed", "1"), "seed was 0, is 1"), (("--set", "ovit.damping=1"), "was done with")]
)
def test_cells_of_another_study_do_not_mix(ovit, all_methods, changed, told) -> None:
    with pytest.raises(OvitError, match=told):
        ovit("compare", *SMALL, "--sparsities", "0.5", "--methods", "ovit", "--out", "all", *changed)


def test_a_method_that_fails_costs_its_own_cells_only(ovit, workplace, capsys) -> None:
    with pytest.raises(OvitError, match="ovit: not all cells"):
        ovit(
            *("compare", "--num-grads", "40", "--methods", "ovit,magnitude", "--sparsities", "0.5", "--out", "failed"),
            *("--memory-budget", "10KB"),
        )
    told = json.loads((workplace / "failed/results.json").read_text())
    assert [cell["method"] for cell in told["cells"]] == [DENSE, "magnitude"]
    assert told["failures"][0]["method"] == "ovit"
    assert "too few to work on a Fisher block" in capsys.readouterr().err


def test_with_finetune_every_cell_is_trained_and_the_dense_model_as_long(ovit, workplace) -> None:
    (workplace / "training.yaml").write_text(TRAINING)
    ovit(
        *("compare", *SMALL, "--methods", "ovit,magnitude", "--sparsities", "0.75", "--out", "trained"),
        *("--finetune", "2", "--finetune-recipe", "training.yaml"),
    )
    told = json.loads((workplace / "trained/results.json").read_text())
    assert [cell["method"] for cell in told["cells"]] == [DENSE, "ovit", "magnitude"]
    for cell in told["cells"]:
        assert cell["training"]["epochs"] == 2
        assert cell["training"]["loss"] < cell["calibration_loss"] + 0.5
    assert "learning_rate" in told["subject"]["training"]["text"]


def test_training_holds_the_zeros_and_is_the_same_each_time(subject, workplace) -> None:
    data = load_data(str(workplace / "images"))
    recovery = Recovery(parse_recipe(TRAINING, overrides={"num_epochs": "1"}), data, subject.model, seed=0)
    pruned = METHODS["magnitude"].prune(subject.model, subject.masks, sparsity=0.75)
    apply(subject.model, pruned)
    weights = []
    for _ in range(2):
        model = subject_of(
            choose(None, checkpoint=workplace / "dense.safetensors", pretrained=False),
            data,
            targets=(),
            num_images=40,
            seed=0,
        ).model
        apply(model, pruned)
        recovery.train(model, pruned.masks)
        weights.append({name: model.get_parameter(name).detach().clone() for name in pruned.masks})
    for name, mask in pruned.masks.items():
        assert not weights[0][name][~mask].any()
        assert not torch.equal(weights[0][name], pruned.weights[name])
        assert torch.equal(weights[0][name], weights[1][name])


def test_a_recipe_for_training_must_not_prune(subject, workplace) -> None:
    pruning = (
        "  - !GlobalMagnitudePruningModifier {params: [__ALL_PRUNABLE__], init_sparsity: 0.5, final_sparsity: 0.5,"
    )
    recipe = parse_recipe(TRAINING + pruning + " start_epoch: 0, end_epoch: 0, update_frequency: 1}\n")
    with pytest.raises(RecipeError, match="prunes"):
        Recovery(recipe, load_data(str(workplace / "images")), subject.model, seed=0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--methods", "ovti"), "no method 'ovti'"),
        (("--methods", ","), "nothing in it"),
        (("--sparsities", "0.5,75"), "75 is no sparsity"),
        (("--set", "ovit.damping"), "not METHOD.SETTING=VALUE"),
        (("--set", "ovit.damp=1"), "ovit has no damp"),
        (("--set", "obs.damping=1"), "obs is not compared"),
        (("--set", "ovit.damping=much"), "no value of it"),
        (("--set", "ovit.damping=-1"), "damping is -1"),
        (("--params", "re:nowhere"), "matches no parameter"),
        (("--num-grads", "0"), "at least one image"),
        (("--num-grads", "400"), "400 gradients asked for"),
        (("--finetune", "-1"), "not a number of epochs"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(ovit, workplace, arguments, told) -> None:
    with pytest.raises(OvitError, match=told):
        ovit("compare", "--out", "mistake", *arguments)
    assert not (workplace / "mistake").exists()


def test_settings_are_read_as_what_they_are() -> None:
    chosen = known.with_settings(
        known.named(["ovit", "wanda"]),
        ["ovit.damping=1e-6", "ovit.refine=true", "ovit.allocation=uniform", "wanda.num_samples=7"],
    )
    assert known.settings(chosen["ovit"]) == known.settings(METHODS["ovit"]) | {
        "damping": 1e-6,
        "refine": True,
        "allocation": "uniform",
    }
    assert known.settings(chosen["wanda"])["num_samples"] == 7


def test_no_method_looks_at_more_images_than_there_are_to_calibrate() -> None:
    limited = known.within(METHODS, num_images=100, memory_budget=2**30)
    for name, method in limited.items():
        own, before = known.settings(method), known.settings(METHODS[name])
        for key in ("num_grads", "num_samples"):
            assert own.get(key) == (min(before[key], 100) if key in before else None)


def test_a_file_that_is_no_journal_is_left_alone(tmp_path) -> None:
    path = tmp_path / "cells.jsonl"
    path.write_text("not a journal\n")
    with pytest.raises(OvitError, match="not the journal"):
        Journal(path, {})
    assert path.read_text() == "not a journal\n"


def test_a_journal_gives_back_the_cells_it_was_given(tmp_path) -> None:
    cell = Cell("ovit", {"damping": 1e-8}, 0.5, 0.5, 0.9, (0.8, 0.95), 9, 10, 0.1, 0.01, 0.02)
    Journal(tmp_path / "cells.jsonl", {"seed": 0}).add(cell)
    again = Journal(tmp_path / "cells.jsonl", {"seed": 0})
    assert again.find("ovit", 0.5, {"damping": 1e-8}) == cell
    assert again.find("ovit", 0.6, {"damping": 1e-8}) is None
