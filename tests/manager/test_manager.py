import math

import pytest
import torch
from cases import images_and_labels, tiny_vit
from torch import nn
from torch.nn import functional

from ovit_deploy.errors import PruningError, RecipeError, TrainingError
from ovit_deploy.manager import ScheduledModifierManager

PRUNE = """
num_epochs: 2
target: 0.6
modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: eval(num_epochs)}
  - !SetLearningRateModifier {learning_rate: 0.01}
  - !GlobalMagnitudePruningModifier
    params: ['re:blocks.*fc[12].weight']
    init_sparsity: 0.2
    final_sparsity: eval(target)
    start_epoch: 0.5
    end_epoch: 1.5
    update_frequency: 0.5
"""
OVIT = """modifiers:
  - !OViTPruningModifier {params: ['re:blocks.*fc1.weight'], init_sparsity: 0.5, final_sparsity: 0.5, start_epoch: 0,
      end_epoch: 0, update_frequency: 1, num_grads: 24, fisher_block_size: 32}
"""
DISTIL = "modifiers: [!DistillationModifier {hardness: 0.25, temperature: 3.0, start_epoch: 1}]\n"


def sampler(num_samples: int = 40, loss=functional.cross_entropy) -> dict:
    images, labels = images_and_labels(num_samples)
    pairs = zip(images.split(16), labels.split(16), strict=True)
    return {"data_loader_builder": lambda _: (([x], {}, y) for x, y in pairs), "loss_function": loss}


def fc_sparsity(model: nn.Module) -> float:
    weights = [p for name, p in model.named_parameters() if ".fc" in name and name.endswith("weight")]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def step(model: nn.Module, optimizer) -> None:
    images, labels = images_and_labels(8)
    optimizer.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def test_a_loop_of_ones_own_prunes_by_the_recipe() -> None:
    model = tiny_vit()
    manager = ScheduledModifierManager.from_yaml(PRUNE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    wrapped = manager.modify(model, optimizer, steps_per_epoch=2)
    sparsities = []
    for _ in range(round(manager.max_epochs) * 2):
        step(model, wrapped)
        sparsities.append(fc_sparsity(model))
    assert sparsities == pytest.approx([0, 0.2, 0.55, 0.6], abs=1e-3)
    assert wrapped.wrapped_epoch == 2.0
    assert wrapped.param_groups[0]["lr"] == 0.01
    manager.finalize(model)
    assert not manager.initialized
    step(model, optimizer)
    assert fc_sparsity(model) < 0.1  # nothing holds the zeros any more


def test_gradients_of_pruned_weights_are_zero_before_they_can_be_clipped() -> None:
    model = tiny_vit()
    manager = ScheduledModifierManager.from_yaml(PRUNE)
    wrapped = manager.modify(model, torch.optim.SGD(model.parameters(), 0.1), steps_per_epoch=1)
    step(model, wrapped)
    step(model, wrapped)
    images, labels = images_and_labels(8)
    wrapped.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    for name, mask in manager.masks.items():
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert not gradient[~mask].any()
        assert gradient[mask].any()


def test_an_emulated_step_counts_and_prunes_but_does_not_learn() -> None:
    model = tiny_vit()
    before = model.head.weight.detach().clone()
    manager = ScheduledModifierManager.from_yaml(PRUNE)
    wrapped = manager.modify(model, torch.optim.SGD(model.parameters(), 1.0), steps_per_epoch=1)
    for _ in range(3):
        wrapped.emulated_step()
    assert fc_sparsity(model) == pytest.approx(0.6, abs=1e-3)
    assert torch.equal(model.head.weight, before)


def test_variables_by_mapping_json_or_pairs() -> None:
    for given in ({"target": 0.4}, '{"target": 0.4}', "target=0.4,num_epochs=3", "target: 0.4"):
        manager = ScheduledModifierManager.from_yaml(PRUNE, recipe_variables=given)
        assert manager.timeline.final_sparsity == 0.4
    with pytest.raises(RecipeError, match="did you mean 'target'"):
        ScheduledModifierManager.from_yaml(PRUNE, recipe_variables={"traget": 1})


def test_a_recipe_file(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(PRUNE)
    assert ScheduledModifierManager.from_yaml(path).max_epochs == 2
    assert "GlobalMagnitude" in str(ScheduledModifierManager.from_yaml(str(path)))


def test_one_shot_with_samples_from_a_grad_sampler() -> None:
    model = tiny_vit()
    ScheduledModifierManager.from_yaml(OVIT).apply(model, grad_sampler=sampler())
    weights = [model.get_parameter(f"blocks.{k}.mlp.fc1.weight") for k in (0, 1)]
    zeros, total = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
    assert zeros == round(0.5 * total)


def test_one_shot_goes_straight_to_what_is_due() -> None:
    for epoch, wanted in ((math.inf, 0.6), (1.2, 0.55), (0.1, 0.0)):
        model = tiny_vit()
        ScheduledModifierManager.from_yaml(PRUNE).apply(model, epoch)
        assert fc_sparsity(model) == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (None, "no samples"),
        ({"data_loader_builder": list}, "no samples"),
        (sampler(16), "gave 16 samples"),
        (
            sampler(loss=lambda outputs, labels: functional.cross_entropy(outputs, labels, label_smoothing=0.3)),
            "cross-",
        ),
        ({"data_loader_builder": lambda _: [(1, 2)], "loss_function": functional.cross_entropy}, "class indices"),
    ],
)
def test_a_grad_sampler_that_cannot_be_used_is_an_error(samples, told: str) -> None:
    with pytest.raises(PruningError, match=told):
        ScheduledModifierManager.from_yaml(OVIT).apply(tiny_vit(), grad_sampler=samples)


def test_the_loss_is_mixed_with_the_teachers_from_its_epoch_on() -> None:
    student, teacher = tiny_vit(0), tiny_vit(1)
    manager = ScheduledModifierManager.from_yaml(DISTIL)
    optimizer = torch.optim.SGD(student.parameters(), 0.0)
    wrapped = manager.modify(student, optimizer, steps_per_epoch=1, distillation_teacher=teacher)
    student.train()
    images, labels = images_and_labels(8)
    told = []
    for _ in range(3):
        logits = student(images)
        loss = functional.cross_entropy(logits, labels)
        told.append((float(loss.detach()), float(wrapped.loss_update(loss).detach())))
        wrapped.step()
    p, q = (functional.softmax(net(images).detach().double() / 3, 1) for net in (teacher, student))
    expected = 0.75 * told[0][0] + 0.25 * 9 * float((p * (p / q).log()).sum(1).mean())
    assert told[0][0] == told[0][1]
    assert told[2][1] == pytest.approx(expected, rel=1e-5)
    wrapped.loss_update(loss)
    with pytest.raises(TrainingError, match="forward pass"):
        wrapped.loss_update(loss)


def test_a_recipe_that_distils_wants_a_teacher() -> None:
    model = tiny_vit()
    with pytest.raises(RecipeError, match="no teacher"):
        ScheduledModifierManager.from_yaml(DISTIL).initialize(model)
    for teacher in ("self", "disable"):
        manager = ScheduledModifierManager.from_yaml(DISTIL)
        manager.initialize(model, distillation_teacher=teacher)
        manager.finalize(model)


def test_training_that_starts_later_holds_the_zeros_that_are_there() -> None:
    model = tiny_vit()
    ScheduledModifierManager.from_yaml(PRUNE).apply(model)
    manager = ScheduledModifierManager.from_yaml(PRUNE)
    wrapped = manager.modify(model, torch.optim.AdamW(model.parameters()), steps_per_epoch=2, epoch=1.75)
    assert wrapped.wrapped_steps == 4
    step(model, wrapped)
    assert fc_sparsity(model) == pytest.approx(0.6, abs=1e-3)


def test_a_scaler_may_be_wrapped_instead() -> None:
    model = tiny_vit()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu")
    manager = ScheduledModifierManager.from_yaml(PRUNE)
    wrapped = manager.modify(model, optimizer, 1, wrap_optim=scaler)
    images, labels = images_and_labels(8)
    for _ in range(3):
        optimizer.zero_grad()
        wrapped.scale(functional.cross_entropy(model(images), labels)).backward()
        wrapped.step(optimizer)
        wrapped.update()
    assert fc_sparsity(model) == pytest.approx(0.6, abs=1e-3)


def test_a_wrapped_model_may_be_looked_into() -> None:
    model = tiny_vit()
    parallel, optimizer = nn.DataParallel(model), torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(RecipeError, match="matches no parameter"):
        ScheduledModifierManager.from_yaml(PRUNE).modify(parallel, optimizer, 1)
    manager = ScheduledModifierManager.from_yaml(PRUNE)
    manager.modify(parallel, optimizer, 1, allow_parallel_module=False)
    assert manager.initialized


def test_misuse_is_told() -> None:
    model = tiny_vit()
    manager = ScheduledModifierManager.from_yaml(PRUNE)
    with pytest.raises(RecipeError, match="modifies no model"):
        manager.finalize(model)
    manager.initialize(model)
    with pytest.raises(RecipeError, match="already"):
        manager.initialize(model)
    with pytest.raises(RecipeError, match="steps_per_epoch is 0"):
        manager.modify(model, torch.optim.SGD(model.parameters(), 0.1), 0)
