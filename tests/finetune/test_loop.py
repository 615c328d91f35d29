import pytest
import torch
from cases import tiny_vit
from torch import nn
from training_cases import trained, weights_of

from ovit_deploy.errors import TrainingError
from ovit_deploy.finetune import masks
from ovit_deploy.finetune.ema import WeightAverage

DISTIL = "\n  - !DistillationModifier {start_epoch: 0.25, end_epoch: 1.5}\n"
PRUNE_AND_HEAL = """
  - !GlobalMagnitudePruningModifier
    params: ['re:blocks.*(attn|mlp).*weight']
    init_sparsity: 0.75
    final_sparsity: 0.75
    start_epoch: 0
    end_epoch: 0
    update_frequency: 1
    heal_samples: 32
"""
EVERYTHING = "ema_decay: 0.9, accumulation_steps: 2, label_smoothing: 0.1, precision: bfloat16, "


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lamb"])
@pytest.mark.parametrize(
    "training",
    [
        "augmentation: {crop_padding: 2}",
        "ema_decay: 0.9",
        "accumulation_steps: 2",
        "augmentation: {mixup: 0.8, cutmix: 1.0}",
        EVERYTHING + "augmentation: {preset: deit, mixup: 0.2}",
    ],
)
def test_zeros_stay_zero_through_momentum_averaging_accumulation_and_mixing(optimizer, training) -> None:
    state, steps, _ = trained(f"optimizer: {optimizer}, {training}")
    assert masks.sparsity(state.masks) == pytest.approx(0.75, abs=1e-4)
    for name, mask in state.masks.items():
        assert (state.model.get_parameter(name)[~mask] == 0).all()
    assert [step.sparsity for step in steps] == sorted(step.sparsity for step in steps)


def test_moments_of_pruned_weights_die_out() -> None:
    state, _, _ = trained("clip_gradient_norm: null", epochs=8)
    for name, mask in state.masks.items():
        moment = state.optimizer.state[state.model.get_parameter(name)]["exp_avg"]
        assert moment[~mask].abs().max() < 1e-2 * moment[mask].abs().max()


@pytest.mark.parametrize("mixed", ["", "augmentation: {mixup: 0.8, cutmix: 1.0}"])
def test_accumulated_steps_are_those_of_one_large_batch(mixed) -> None:
    """SGD: Adam's first steps divide by the gradient's size and would enlarge rounding."""
    shared = f"optimizer: sgd, label_smoothing: 0.1, {mixed}"
    (large, steps, _), (small, small_steps, _) = (
        trained(f"accumulation_steps: {count}, {shared}", batch_size=size) for size, count in ((16, 1), (4, 4))
    )
    assert len(steps) == len(small_steps) == 8
    assert torch.allclose(weights_of(large.model), weights_of(small.model), atol=1e-5)
    assert small_steps[-1].loss == pytest.approx(steps[-1].loss, rel=1e-4)


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before() -> None:
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        state, _, _ = trained("augmentation: deit", DISTIL)
        found.append(weights_of(state.model))
    assert torch.equal(*found)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
@pytest.mark.parametrize("augmentation", ["{crop_padding: 0}", "{crop_padding: 0, mixup: 0.1}"])
def test_training_lowers_each_loss(loss, augmentation) -> None:
    _, steps, _ = trained(f"loss: {loss}, label_smoothing: 0.1, augmentation: {augmentation}", "", epochs=6)
    assert steps[-1].loss < 0.8 * steps[0].loss
    assert steps[-1].train_top1 > 0.2


def test_what_is_saved_is_the_average_of_the_weights_since_the_last_pruning(monkeypatch) -> None:
    """Compared with the same average taken by hand of the weights after each step."""
    seen, restarts = [], []
    update, restart = WeightAverage.update, WeightAverage.restart
    monkeypatch.setattr(WeightAverage, "update", lambda self: (seen.append(weights_of(self.model)), update(self)))
    monkeypatch.setattr(
        WeightAverage, "restart", lambda self: (restarts.append((len(seen), weights_of(self.model))), restart(self))
    )
    state, _, _ = trained("ema_decay: 0.9")
    start, expected = restarts[-1]
    assert [place for place, _ in restarts] == [4, 8]
    for count, weights in enumerate(seen[start:], start=1):
        decay = min(0.9, 1 - (1 + count) ** (-2 / 3))
        expected = decay * expected + (1 - decay) * weights
    assert torch.allclose(weights_of(state.model), expected, atol=1e-6)
    assert not torch.allclose(weights_of(state.model), seen[-1], atol=1e-4)


def test_clipping_does_not_see_gradients_of_pruned_weights(monkeypatch) -> None:
    seen = []
    clip = torch.nn.utils.clip_grad_norm_

    def spy(parameters, limit):
        parameters = list(parameters)
        seen.append([parameter.grad.clone() for parameter in parameters])
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    state, _, _ = trained()
    names = [name for name, _ in state.model.named_parameters()]
    for name, mask in state.masks.items():
        assert (seen[-1][names.index(name)][~mask] == 0).all()


def test_healing_is_in_the_record_and_lowers_every_layers_error() -> None:
    state, _, records = trained(modifiers=PRUNE_AND_HEAL, epochs=1)
    healing = next(line for line in records if line["event"] == "prune")["details"]["healing"]
    assert healing["samples"] == 32
    assert set(healing["before"]) == set(state.masks)
    assert all(healing["after"][name] <= error for name, error in healing["before"].items())


class PoisonedAt(nn.Module):
    """A model whose output, or only the gradient of it, is not a number in some steps."""

    def __init__(self, steps: set[int], *, gradient: bool) -> None:
        super().__init__()
        self.inner = tiny_vit()
        self.num_classes = 10
        self.steps = steps
        self.gradient = gradient
        self.step = -1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.inner(images)
        if not self.training:
            return logits
        self.step += 1
        if self.step not in self.steps:
            return logits
        if self.gradient:
            logits.register_hook(lambda gradient: gradient * torch.nan)
            return logits
        return logits * torch.nan


@pytest.mark.parametrize("clip", ["1.0", "null"])
@pytest.mark.parametrize("gradient", [False, True])
def test_a_step_that_is_not_finite_is_left_out_and_counted(gradient, clip) -> None:
    model = PoisonedAt({2, 3, 4, 9}, gradient=gradient)
    state, steps, records = trained(f"clip_gradient_norm: {clip}", "", model=model)
    assert len(steps) == 16
    assert all(parameter.isfinite().all() for parameter in state.model.parameters())
    assert [line["steps_left_out"] for line in records if line["event"] == "epoch"] == [3, 1]
    applied = {int(moments["step"]) for moments in state.optimizer.state.values()}
    assert applied == {12}


@pytest.mark.parametrize("gradient", [False, True])
def test_several_steps_in_a_row_that_are_not_finite_end_the_run(gradient) -> None:
    what = "the gradient's norm is nan" if gradient else "the loss is nan"
    with pytest.raises(TrainingError, match=rf"{what} at epoch 0.75 \(step 6\), as in the 3 steps before it"):
        trained("", "", model=PoisonedAt({3, 4, 5, 6}, gradient=gradient))
