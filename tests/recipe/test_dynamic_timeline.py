"""When movement pruning, AC/DC and RigL act, and what of their recipes is refused."""

from math import cos, pi

import pytest

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.lint import lint
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.picture import figure
from ovit_deploy.recipe.planning import events
from ovit_deploy.recipe.timeline import Densify, Prune, Regrow, Score, timeline

PARAMS = "params: ['re:blocks.*weight']"


def recipe(tag: str, **keys: object) -> str:
    said = "".join(f", {key}: {value}" for key, value in keys.items())
    return f"modifiers:\n  - !EpochRangeModifier {{end_epoch: 20}}\n  - !{tag}PruningModifier {{{PARAMS}{said}}}\n"


def dated(text: str) -> list[tuple[float, str]]:
    names = {Prune: "prune", Densify: "densify", Score: "score", Regrow: "regrow"}
    return [(item.epoch, names[type(item.action)]) for item in timeline(parse_recipe(text)).dated]


def acdc(start: float, end: float, every: float) -> list[tuple[float, str]]:
    return dated(recipe("ACDC", compression_sparsity=0.9, start_epoch=start, end_epoch=end, update_frequency=every))


def sparsemls_phase(epoch: float, start: float, end: float, every: float) -> str:
    """``floor((e - start) / every)``: even ones are dense, until ``end - every``."""
    return "densify" if (epoch - start) // every % 2 == 0 and epoch < end - every else "prune"


@pytest.mark.parametrize(
    ("start", "end", "every"), [(0, 5, 1), (0, 20, 5), (2, 18, 3), (5, 15, 3), (0, 9, 2), (6, 19, 1), (0, 2.5, 1)]
)
def test_ac_dc_has_sparsemls_phases_and_ends_compressed(start: float, end: float, every: float) -> None:
    phases = dict(acdc(start, end, every))
    now, epoch = "", start
    while epoch <= end:
        now = phases.get(epoch, now)
        assert now == sparsemls_phase(epoch, start, end, every), epoch
        epoch += every
    assert list(phases.values())[-1] == "prune"


def test_ac_dc_without_room_for_a_dense_phase_prunes_at_once() -> None:
    assert acdc(3, 3, 1) == [(3, "prune")] == acdc(3, 4, 1)


def test_movement_is_scored_from_the_first_step_on() -> None:
    text = recipe("Movement", init_sparsity=0.1, final_sparsity=0.8, start_epoch=2, end_epoch=4, update_frequency=1)
    assert dated(text) == [(0, "score"), (2, "prune"), (3, "prune"), (4, "prune")]


@pytest.mark.parametrize(("start", "end", "init"), [(0, 4, 0.1), (0, 0, 0.0), (-1, 4, 0.1)])
def test_movement_without_a_step_to_score_is_refused(start: int, end: int, init: float) -> None:
    keys = {"init_sparsity": init, "final_sparsity": 0.8, "start_epoch": start, "end_epoch": end, "update_frequency": 1}
    with pytest.raises(RecipeError, match="start later" if start == 0 else "start_epoch"):
        parse_recipe(recipe("Movement", **keys))


def test_rigl_exchanges_a_fraction_that_falls_as_a_cosine() -> None:
    keys = {"final_sparsity": 0.8, "start_epoch": 2, "end_epoch": 6, "update_frequency": 1, "num_grads": 3}
    plan = timeline(parse_recipe(recipe("RigL", **keys) + "training: {batch_size: 32}\n"))
    (start, *updates) = [item.action for item in plan.dated]
    assert isinstance(start, Prune) and start.sparsity == 0.8
    assert [item.epoch for item in plan.dated] == [2, 3, 4, 5]
    assert all(isinstance(update, Regrow) and update.num_images == 96 for update in updates)
    assert [update.fraction for update in updates if isinstance(update, Regrow)] == pytest.approx(
        [0.15 * (1 + cos(pi * t / 4)) for t in (1, 2, 3)]
    )


@pytest.mark.parametrize(
    ("tag", "keys", "told"),
    [
        ("ACDC", {"compression_sparsity": 0.75, "mask_type": "'2:4'"}, "set compression_sparsity to 0.5"),
        ("ACDC", {"compression_sparsity": 0.75, "leave_enabled": "False"}, "grow back"),
        ("ACDC", {"compression_sparsity": 0.75, "final_sparsity": 0.75}, "final_sparsity"),
        ("RigL", {"final_sparsity": 0.5, "mask_type": "'2:4'"}, "2:4 is not supported here"),
        ("RigL", {"final_sparsity": 0.5, "sparsity_strategy": "erk"}, "erdos_renyi_kernel"),
        ("RigL", {"final_sparsity": 0.5, "init_update_fraction": 0}, "init_update_fraction"),
    ],
)
def test_what_cannot_be_done_is_refused(tag: str, keys: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parse_recipe(recipe(tag, **keys, start_epoch=0, end_epoch=4, update_frequency=1))


def test_plan_picture_and_lint_know_them() -> None:
    text = recipe("ACDC", compression_sparsity=0.9, start_epoch=0, end_epoch=4, update_frequency=1)
    text += f"  - !RigLPruningModifier {{{PARAMS}, final_sparsity: 0.5, "
    text += "start_epoch: 6, end_epoch: 30, update_frequency: 12}\n"
    read = parse_recipe(text)
    shapes = {"blocks.0.weight": (4, 4)}
    told = [(event.epoch, event.action, event.sparsity) for event in events(read, steps_per_epoch=10)]
    assert told[:5] == [
        (0, "densify", 0.0),
        (1, "prune", 0.9),
        (2, "densify", 0.0),
        (3, "prune", 0.9),
        (6, "prune", 0.5),
    ]
    assert (18, "regrow", 0.5) in told
    assert figure(timeline(read), "a").startswith("<svg")
    codes = {finding.code for finding in lint(text, source="r.yaml", shapes=shapes, steps_per_epoch=10)}
    assert {"past-end", "sparsity-falls"} <= codes
