"""`ScheduledModifierManager`: a recipe carried out inside a training loop that is the user's own.

manager = ScheduledModifierManager.from_yaml("recipe.yaml")
optimizer = manager.modify(model, optimizer, steps_per_epoch=len(loader), grad_sampler=...)
for epoch in range(round(manager.max_epochs)):
    for images, labels in loader:
        optimizer.zero_grad()
        loss = optimizer.loss_update(criterion(model(images), labels))
        loss.backward()
        optimizer.step()          # what the recipe says for this step, then the optimizer's step
manager.finalize(model)
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from ovit_deploy.errors import RecipeError
from ovit_deploy.finetune import masks
from ovit_deploy.finetune.actions import State, carry_out
from ovit_deploy.manager.distillation import Distiller, distiller_for
from ovit_deploy.manager.gradients import MaskedGradients
from ovit_deploy.manager.ported import PortedModifier, Tracking
from ovit_deploy.manager.step import RecipeManagerStepWrapper
from ovit_deploy.pruning import Calibration
from ovit_deploy.pruning.grad_sampler import calibration_from, check_grad_sampler
from ovit_deploy.recipe import Recipe, load_recipe, timeline
from ovit_deploy.recipe.declaration import Compat, Modifier
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.modifiers import DistillationModifier
from ovit_deploy.recipe.overrides import Overrides, read_overrides
from ovit_deploy.recipe.targets import resolve
from ovit_deploy.recipe.timeline import Distill, Prune, Remove


class ScheduledModifierManager:
    """A recipe that acts on a model between the backward pass and the optimizer's step.

    Args:
        recipe: What to do when.
        report: Told in a line what happens.
    """

    def __init__(self, recipe: Recipe, *, report: Callable[[str], None] = lambda _: None) -> None:
        self.recipe = recipe
        self.timeline = timeline(recipe)
        self._report = report
        self._state: State | None = None
        self._holder: masks.MaskedOptimizer | None = None
        self._distiller: Distiller | None = None
        self._tracking: dict[str, Tracking] = {}
        self._gradients: MaskedGradients | None = None

    @classmethod
    def from_yaml(
        cls,
        file_path: str | Path,
        *,
        recipe_variables: Overrides = None,
        compat: Compat | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> "ScheduledModifierManager":
        """The manager of a recipe file, or of a recipe's text (known by its line ends).

        Args:
            file_path: Where it is, or what it says.
            recipe_variables: New values for its variables: a mapping, JSON, or ``name=value,other=value``.
            compat: ``sparseml`` for its dates, ties and rates where they differ; by default as the recipe says.
            report: Told in a line what happens.

        Raises:
            RecipeError: Every problem of the recipe.
        """
        overrides = read_overrides(recipe_variables)
        text = str(file_path)
        recipe = parse_recipe(text, overrides=overrides) if "\n" in text else load_recipe(text, overrides)
        return cls(recipe.model_copy(update={"compat": compat}) if compat else recipe, report=report)

    @property
    def modifiers(self) -> tuple[Modifier, ...]:
        """The recipe's, in the order in which their stages end."""
        return self.recipe.modifiers

    @property
    def max_epochs(self) -> float:
        """How many epochs the recipe lasts."""
        return self.timeline.num_epochs

    @property
    def initialized(self) -> bool:
        """Whether a model is being modified."""
        return self._state is not None

    def qat_active(self, epoch: float) -> bool:
        """Whether activations are quantized while training: no recipe does that here."""
        return False

    def __str__(self) -> str:
        return self.recipe.text

    def initialize(
        self,
        module: nn.Module,
        epoch: float = 0.0,
        *,
        grad_sampler: Mapping[str, Callable[..., Any]] | None = None,
        distillation_teacher: nn.Module | str | None = None,
        memory_budget: int | None = None,
    ) -> None:
        """Find the recipe's targets in ``module``; what began before ``epoch`` is taken to have happened.

        Args:
            module: The model.
            epoch: Where training starts, in epochs. Zeros of targets whose pruning began earlier are held.
            grad_sampler: Samples for second-order pruning, as `ovit_deploy.pruning.grad_sampler` says.
            distillation_teacher: A model, "self", or "disable", where the recipe distils.
            memory_budget: Bytes that pruning may use; by default half of what is free.

        Raises:
            RecipeError: The recipe does not fit the model, or wants a teacher and has none.
            PruningError: It wants samples and has none.
        """
        if self._state is not None:
            raise RecipeError(
                "this manager modifies a model already", "finalize it first, or make a manager for each model"
            )
        if any(isinstance(item.action, Remove) for item in self.timeline.dated):
            raise RecipeError(
                "the recipe removes parts of the model: a training loop of your own may hold on to them",
                "run it with ovit-deploy prune, or leave those modifiers out",
            )
        needs = [pruner for pruner, _ in self.timeline.pruners if pruner.num_images]
        sampler = check_grad_sampler(grad_sampler) if needs else {}
        targets = resolve(self.recipe, {name: tuple(p.shape) for name, p in module.named_parameters()})
        self._distiller = distiller_for(self.timeline, module, distillation_teacher)
        state = State(
            model=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.0),  # replaced by modify; apply makes no steps
            targets=targets,
            calibration=lambda count, _draw=0: _calibration(sampler, module, count),
            memory_budget=memory_budget,
            report=self._report,
            compat=self.recipe.compat,
        )
        self._tracking = {
            place: modifier.tracking(module, targets[place])
            for modifier, place in self.timeline.pruners
            if isinstance(modifier, PortedModifier)
        }
        state.methods.update(self._tracking)
        self._state, self._gradients = state, MaskedGradients(module, state.masks)
        self._catch_up(state, epoch)

    def modify(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        steps_per_epoch: int,
        wrap_optim: Any = None,
        epoch: float = 0.0,
        allow_parallel_module: bool = True,
        **initialize: Any,
    ) -> RecipeManagerStepWrapper:
        """Wrap ``optimizer`` so that its steps carry out the recipe.

        Args:
            module: The model.
            optimizer: What trains it.
            steps_per_epoch: Optimizer steps in an epoch.
            wrap_optim: What has the ``step`` that the loop calls, where it is not the optimizer: a GradScaler.
            epoch: Where training starts.
            allow_parallel_module: False looks inside a DataParallel or DistributedDataParallel for the model; with
                True its parameters are called ``module.``...
            initialize: As `initialize` takes it, unless that was called.

        Raises:
            OvitError: As `initialize`.
        """
        if steps_per_epoch < 1:
            raise RecipeError(f"steps_per_epoch is {steps_per_epoch}", "pass len(loader)")
        if not allow_parallel_module and isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        if self._state is None:
            self.initialize(module, epoch, **initialize)
        state = self._active
        state.optimizer = optimizer
        self._holder = masks.MaskedOptimizer(state.model, optimizer, state.masks)
        wrapped = optimizer if wrap_optim is None else wrap_optim
        return RecipeManagerStepWrapper(wrapped, self, epoch=epoch, steps_per_epoch=steps_per_epoch)

    def update(self, epoch: float, steps_per_epoch: int) -> None:
        """Carry out what is due in the step that starts at ``epoch``; nothing once the manager is finalized."""
        state, step = self._state, 1 / steps_per_epoch
        if state is None or self._gradients is None:
            return
        for pruner in self._tracking.values():
            pruner.before_step()
        due = self.timeline.due(epoch, step)
        if due:
            self._gradients.remove()
            for action in due:
                carry_out(action, state, epoch)
        self._gradients.hold()
        if any(rate.start <= epoch + 1e-9 for rate in self.timeline.rates):
            rate = self.timeline.learning_rate(epoch, step)
            for group in state.optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)

    def loss_update(self, loss: torch.Tensor) -> torch.Tensor:
        """``loss``, mixed with the teacher's opinion while the recipe distils."""
        modifier = self._state.distillation if self._state else None
        if self._distiller is None or not isinstance(modifier, DistillationModifier):
            return loss
        return self._distiller.mix(loss, modifier)

    def apply(self, module: nn.Module, epoch: float = math.inf, *, finalize: bool = True, **initialize: Any) -> None:
        """One shot: every pruning of the recipe that is due by ``epoch`` at once, each to its last sparsity.

        Raises:
            OvitError: As `initialize`, or as the pruning.
        """
        if self._state is None:
            self.initialize(module, **initialize)
        last: dict[str, Prune] = {}
        dated = [item for item in self.timeline.dated if item.epoch <= epoch]
        for item in dated:
            if isinstance(item.action, Prune):
                last[item.action.place] = item.action
        for item in dated:
            if (
                not isinstance(item.action, Prune | Distill)
                or last.get(getattr(item.action, "place", "")) is item.action
            ):
                carry_out(item.action, self._active, item.epoch)
        if finalize:
            self.finalize(module)

    def finalize(self, module: nn.Module | None = None) -> None:
        """Let the model and the optimizer go. Nothing holds the zeros from here on: say `ConstantPruningModifier`."""
        state = self._active
        for name, mask in state.masks.items():
            assert not bool(state.model.get_parameter(name)[~mask].any()), name
        for removable in (self._holder, self._distiller, self._gradients):
            if removable is not None:
                removable.remove()
        self._tracking.clear()
        self._state = self._holder = self._distiller = self._gradients = None

    @property
    def masks(self) -> Mapping[str, torch.Tensor]:
        """Which weights are kept now, by the name of their tensor."""
        return self._active.masks

    @property
    def _active(self) -> State:
        if self._state is None:
            raise RecipeError("this manager modifies no model", "call initialize, modify or apply first")
        return self._state

    def _catch_up(self, state: State, epoch: float) -> None:
        """What began before ``epoch``: settings count, and zeros that were pruned are held."""
        for item in self.timeline.dated:
            if item.epoch >= epoch:
                continue
            if isinstance(item.action, Prune):
                state.masks.update(masks.of_zeros(state.model, state.targets[item.action.place]))
            else:
                carry_out(item.action, state, item.epoch)


def _calibration(sampler: Mapping[str, Callable[..., Any]], module: nn.Module, count: int) -> Calibration:
    return calibration_from(sampler, module, count)
