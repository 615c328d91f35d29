"""The wrapped optimizer: a manager's actions happen inside its ``step()``."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ovit_deploy.recipe.sparseml import epoch_of

if TYPE_CHECKING:
    from ovit_deploy.manager.manager import ScheduledModifierManager


class RecipeManagerStepWrapper:
    """An optimizer (or a gradient scaler) whose ``step()`` first carries out what the recipe says for this step.

    Everything else is the wrapped object's own. An epoch is a fraction, steps / ``steps_per_epoch``: call
    ``emulated_step`` where a batch makes no optimizer step, or the recipe ends too early.
    """

    def __init__(
        self, wrapped: Any, manager: "ScheduledModifierManager", *, epoch: float, steps_per_epoch: int
    ) -> None:
        self.wrapped = wrapped
        self.wrapped_manager = manager
        self.wrapped_steps_per_epoch = steps_per_epoch
        self.wrapped_steps = round(epoch * steps_per_epoch)

    def __getattr__(self, name: str) -> Any:
        if name == "wrapped":  # before it is there: in copies
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("wrapped"):
            super().__setattr__(name, value)
        else:
            setattr(self.wrapped, name, value)

    @property
    def wrapped_epoch(self) -> float:
        """The epoch at which the coming step starts."""
        return epoch_of(self.wrapped_steps, self.wrapped_steps_per_epoch)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Carry out what is due, then step; between ``loss.backward()`` and ``zero_grad()``, as always."""
        self.wrapped_manager.update(self.wrapped_epoch, self.wrapped_steps_per_epoch)
        result = self.wrapped.step(*args, **kwargs)
        self.wrapped_steps += 1
        return result

    def emulated_step(self) -> None:
        """Carry out what is due and count the step, without one of the optimizer."""
        self.wrapped_manager.update(self.wrapped_epoch, self.wrapped_steps_per_epoch)
        self.wrapped_steps += 1

    def loss_update(self, loss: Tensor) -> Tensor:
        """The loss to call ``backward()`` on: mixed with the teacher's while the recipe distils, else ``loss``."""
        return self.wrapped_manager.loss_update(loss)
