"""Movement pruning, AC/DC and RigL from their recipes, seen at every step of training."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from cases import images_and_labels, tiny_vit
from training_cases import SEEN, random_images

from ovit_deploy import checkpoint
from ovit_deploy.data import ImageData, load_data, train_loader
from ovit_deploy.data.sources import ArrayImages
from ovit_deploy.finetune.actions import State, carry_out
from ovit_deploy.finetune.loop import train
from ovit_deploy.finetune.masks import sparsity
from ovit_deploy.finetune.run import run
from ovit_deploy.models import Choice, ModelSpec
from ovit_deploy.pruning import Calibration
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import timeline

TARGETS = "params: ['re:blocks.*(attn|mlp).*weight']"
HEAD = """
training: {batch_size: 8}
modifiers:
  - !EpochRangeModifier {end_epoch: 5}
  - !SetLearningRateModifier {learning_rate: 1e-2}
"""
MOVEMENT = f"""  - !MovementPruningModifier
    {{{TARGETS}, init_sparsity: 0.2, final_sparsity: 0.6, start_epoch: 1, end_epoch: 3, update_frequency: 1}}
"""
ACDC = f"""  - !ACDCPruningModifier
    {{{TARGETS}, compression_sparsity: 0.75, start_epoch: 0, end_epoch: 5, update_frequency: 1}}
"""
RIGL = f"""  - !RigLPruningModifier
    {{{TARGETS}, final_sparsity: 0.7, start_epoch: 1, end_epoch: 5, update_frequency: 0.5, num_grads: 2}}
"""
STEPS = 2  # an epoch


def trained(text: str, look: Callable[[State, float], None], optimizer: str = "adamw") -> State:
    """A tiny ViT trained by a recipe; ``look`` sees it after every step, with the epoch at which the step began."""
    recipe = parse_recipe(HEAD + text)
    model = tiny_vit()
    make = {"adamw": torch.optim.AdamW, "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)}[optimizer]
    state = State(
        model=model,
        optimizer=make(model.parameters()),
        targets=resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()}),
        calibration=lambda num, draw=0: Calibration(lambda: [images_and_labels(num, seed=draw)], num),
        memory_budget=None,
        report=lambda _: None,
    )
    train(
        state,
        train_loader(random_images(8 * STEPS), SEEN, recipe.training),
        timeline(recipe),
        recipe.training,
        teacher=None,
        watch=lambda done: look(state, (done.step - 1) / STEPS),
        record=lambda _: None,
    )
    return state


def zeros(state: State) -> float:
    """The fraction of zeros in the targets themselves, whatever their masks say."""
    weights = [state.model.get_parameter(name).detach() for names in state.targets.values() for name in names]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_movement_prunes_by_the_scores_of_the_steps_before(optimizer: str) -> None:
    scores: dict[str, torch.Tensor] = {}
    seen: dict[float, float] = {}

    def look(state: State, epoch: float) -> None:
        seen[epoch] = zeros(state)
        if epoch == 0.5:
            scores.update({name: score.clone() for name, score in next(iter(state.scores.values())).items()})
        if epoch == 1:
            for name, score in scores.items():
                mask = state.masks[name]
                assert score[~mask].max() <= score[mask].min()

    state = trained(MOVEMENT, look, optimizer)
    assert [seen[epoch] for epoch in (0.5, 1, 2, 3, 4.5)] == pytest.approx([0, 0.2, 0.55, 0.6, 0.6], abs=1e-3)
    assert zeros(state) == pytest.approx(0.6, abs=1e-4)


def test_scores_are_minus_the_sum_of_gradients_times_weights() -> None:
    first: dict[str, torch.Tensor] = {}
    before: dict[str, torch.Tensor] = {}
    sums: dict[str, torch.Tensor] = {}

    def look(state: State, epoch: float) -> None:
        (scores,) = state.scores.values()
        for name, score in scores.items():
            weight = state.model.get_parameter(name)
            assert weight.grad is not None
            if name in before:
                sums[name] = sums.get(name, torch.zeros_like(weight)) - weight.grad * before[name]
                torch.testing.assert_close(score - first[name], sums[name])
            else:
                first[name] = score.clone()
            before[name] = weight.detach().clone()

    trained(MOVEMENT.replace("start_epoch: 1", "start_epoch: 4").replace("end_epoch: 3", "end_epoch: 5"), look)
    assert sums


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_ac_dc_is_dense_and_compressed_by_turns_and_compressed_at_last(optimizer: str) -> None:
    seen: list[float] = []
    state = trained(ACDC, lambda state, _: seen.append(zeros(state)), optimizer)
    dense, compressed = [0.0] * STEPS, [0.75] * STEPS
    assert seen == pytest.approx(dense + compressed + dense + compressed + compressed, abs=1e-3)
    assert sparsity(state.masks) == pytest.approx(0.75, abs=1e-4) == zeros(state)


@pytest.mark.parametrize("reset", ["true", "false"])
def test_ac_dc_forgets_moments_when_a_dense_phase_begins(reset: str) -> None:
    steps: dict[float, set[float]] = {}

    def look(state: State, epoch: float) -> None:
        (names,) = state.targets.values()
        steps[epoch] = {float(state.optimizer.state[state.model.get_parameter(name)]["step"]) for name in names}

    state = trained(ACDC.replace("{", "{momentum_buffer_reset: " + reset + ", "), look)
    assert (steps[1.5], steps[2], steps[4.5]) == (({4}, {1}, {6}) if reset == "true" else ({4}, {5}, {10}))
    head = state.optimizer.state[state.model.get_parameter("head.weight")]
    assert float(head["step"]) == 10


def test_zeros_from_before_ac_dc_stay_through_its_dense_phases() -> None:
    held: dict[str, torch.Tensor] = {}
    seen = []

    def look(state: State, epoch: float) -> None:
        if epoch == 0.5:
            held.update({name: mask.clone() for name, mask in state.masks.items()})
        seen.append(zeros(state))
        assert all((state.model.get_parameter(name)[~mask] == 0).all() for name, mask in held.items())

    first = f"  - !GMPruningModifier {{{TARGETS}, init_sparsity: 0.3, final_sparsity: 0.3, "
    first += "start_epoch: 0, end_epoch: 0, update_frequency: 1}\n"
    trained(first + ACDC.replace("start_epoch: 0", "start_epoch: 1"), look)
    assert seen == pytest.approx([0.3] * 4 + [0.75] * 2 + [0.3] * 2 + [0.75] * 2, abs=1e-3)


@pytest.mark.parametrize(
    ("together", "strategy"),
    [("false", "erdos_renyi_kernel"), ("true", "erdos_renyi_kernel"), ("false", "erdos_renyi"), ("true", "uniform")],
)
def test_rigls_zeros_move_but_their_number_stays(together: str, strategy: str) -> None:
    masks: dict[float, dict[str, torch.Tensor]] = {}

    def look(state: State, epoch: float) -> None:
        masks[epoch] = {name: mask.clone() for name, mask in state.masks.items()}
        if epoch >= 1:
            assert all((state.model.get_parameter(name)[~mask] == 0).all() for name, mask in state.masks.items())
            assert zeros(state) == pytest.approx(0.7, abs=2e-3)

    state = trained(RIGL.replace("{", f"{{global_sparsity: {together}, sparsity_strategy: {strategy}, ", 1), look)
    kept = {epoch: {name: int(mask.sum()) for name, mask in found.items()} for epoch, found in masks.items()}
    total = sum(mask.numel() for mask in masks[1.0].values())
    assert all(sum(kept[epoch].values()) == total - round(0.7 * total) for epoch in kept if epoch >= 1)
    assert (kept[4.5] == kept[1.0]) == (together == "false")
    regrown = [line for line in state.prunings if line["event"] == "regrow"]
    assert [line["epoch"] for line in regrown] == [1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]
    changed = sum(int((masks[1.5][name] & ~masks[1.0][name]).sum()) for name in masks[1.0])
    assert 0 < changed == regrown[0]["details"]["num_grown"] <= 0.3 * (total - round(0.7 * total))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_weights_that_rigl_grows_start_at_zero_without_moments(optimizer: str) -> None:
    recipe = parse_recipe(HEAD + RIGL)
    model = tiny_vit()
    make = {"adamw": torch.optim.AdamW, "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)}[optimizer]
    moving = make(model.parameters())
    images, labels = images_and_labels(8)
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    moving.step()
    targets = resolve(recipe, {name: tuple(p.shape) for name, p in model.named_parameters()})
    state = State(model, moving, targets, lambda num, draw=0: Calibration(lambda: [(images, labels)], 8), None, print)
    start, update, *_ = timeline(recipe).dated
    carry_out(start.action, state, 1)
    sparse = dict(state.masks)
    carry_out(update.action, state, 1.5)
    for name, mask in state.masks.items():
        grown, weight = mask & ~sparse[name], model.get_parameter(name)
        moments = [m for m in moving.state[weight].values() if m is not None and m.shape == weight.shape]
        assert grown.any() and (weight[grown] == 0).all() and moments
        assert all((m[grown] == 0).all() and (m[mask & sparse[name]] != 0).any() for m in moments)


SPEC = ModelSpec(
    "vit_tiny_patch16_224",
    {"img_size": 28, "patch_size": 14, "embed_dim": 32, "depth": 1, "num_heads": 2},
    (0.286,),
    (0.353,),
)


@pytest.mark.parametrize(("text", "asked"), [(MOVEMENT, 0.6), (ACDC, 0.75), (RIGL, 0.7)], ids=["mvp", "acdc", "rigl"])
def test_a_run_ends_at_exactly_the_asked_sparsity(text: str, asked: float, tmp_path) -> None:
    whole = load_data()
    few = [ArrayImages(split.images[:64], np.array(split.labels[:64])) for split in (whole.train, whole.test)]
    recipe = parse_recipe(HEAD.replace("batch_size: 8", "batch_size: 32") + text)
    finished = run(recipe, Choice(SPEC), ImageData("few", *few, whole.classes), name="one", runs=tmp_path)
    weights = checkpoint.load_tensors(finished.folder / "model.safetensors")
    masks = checkpoint.load_run(finished.folder).masks()
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((weights[name] == 0).sum()) for name in masks) == round(asked * total)
    assert all((weights[name][~mask] == 0).all() for name, mask in masks.items())
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["sparsity"] == pytest.approx(asked, abs=1e-4)
