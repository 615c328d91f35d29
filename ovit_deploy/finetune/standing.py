"""Where training stands between two steps: all that the steps to come depend on, as a tree to save and put back.

What is drawn at random is a function of the seed and the step (data/randomness.py), and so is the order of the images:
no state of a generator is in it. The dense teacher is rebuilt from the starting weights, whose hash is compared
(fingerprint.py). What recipe actions leave in Python objects, such as hooks, is done again (`actions.redo`).
"""

import math
import time
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ovit_deploy.errors import RunError
from ovit_deploy.finetune import thinning
from ovit_deploy.finetune.actions import State, redo
from ovit_deploy.finetune.ema import WeightAverage
from ovit_deploy.finetune.losses import StepLoss
from ovit_deploy.finetune.tree import Tree
from ovit_deploy.pruning import FisherAverage
from ovit_deploy.recipe.timeline import Timeline
from ovit_deploy.structure import read_structure

# fields of State that are saved as they are
_PLAIN = ("scores", "before", "first_sparsity", "first_costs", "trainable", "prunings", "at_once")

_SUMS = ("loss", "correct", "images", "steps", "left_out", "seconds")


@dataclass
class Tally:
    """Sums over the steps of an epoch."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0
    steps: int = 0
    left_out: int = 0  # steps that were not applied
    started: float = field(default_factory=time.perf_counter)

    def add(self, found: StepLoss) -> None:
        """Take a step in."""
        self.loss += found.loss
        self.correct += found.correct
        self.images += found.images
        self.steps += 1

    def means(self) -> tuple[float, float]:
        """Mean loss and training top-1 so far; not numbers before the first step that is applied."""
        if not self.steps:
            return math.nan, math.nan
        return self.loss / self.steps, self.correct / self.images

    @property
    def seconds(self) -> float:
        """Since it was begun, without the time in which nothing ran."""
        return time.perf_counter() - self.started


@dataclass
class Standing:
    """Training before the forward pass of ``step``; ``acted`` where that step's actions are carried out already."""

    state: State
    average: WeightAverage | None
    step: int = 0
    acted: bool = False
    left_out: int = 0  # steps in a row, before this one
    tally: Tally = field(default_factory=Tally)

    def as_tree(self) -> Tree:
        """To save."""
        state, average, tally = self.state, self.average, self.tally
        averaged = average and {"steps": average.steps, "model": dict(average.average.module.state_dict())}
        return {
            "step": self.step,
            "acted": self.acted,
            "left_out": self.left_out,
            "tally": {name: getattr(tally, name) for name in _SUMS},
            "model": dict(state.model.state_dict()),
            "frozen": [name for name, parameter in state.model.named_parameters() if not parameter.requires_grad],
            "optimizer": state.optimizer.state_dict(),
            "average": averaged,
            "masks": state.masks,
            "structure": state.structure.as_dict() if state.structure else None,
            "fisher": {place: [average.decay, average.blocks] for place, average in state.averages.items()},
            **{name: getattr(state, name) for name in _PLAIN},
        }

    def put_back(self, tree: Tree, timeline: Timeline, step: float) -> None:
        """Bring the state to where ``tree`` was taken; a step lasts ``step`` epochs.

        Raises:
            RunError: it is of another model or optimizer.
        """
        self.step, self.acted, self.left_out = tree["step"], tree["acted"], tree["left_out"]
        if tree["structure"] is not None:
            thinning.put_back(self.state, read_structure(tree["structure"]))
            if self.average is not None:
                self.average.restart()
        for action in timeline.past(self.step * step, step, including=self.acted):
            redo(action, self.state)
        try:
            self._load(tree)
        except (RuntimeError, ValueError) as error:
            raise RunError(f"the checkpoint does not fit the model: {error}", "start a new run") from error

    def _load(self, tree: Tree) -> None:
        state, tally = self.state, dict(tree["tally"])
        state.model.load_state_dict(tree["model"])
        frozen = set(tree["frozen"])
        for name, parameter in state.model.named_parameters():
            parameter.requires_grad_(name not in frozen)
        state.optimizer.load_state_dict(tree["optimizer"])
        if self.average is not None:
            self.average.steps = tree["average"]["steps"]
            self.average.average.module.load_state_dict(tree["average"]["model"])
        device = next(state.model.parameters()).device
        state.masks.update(_on(device, tree["masks"]))  # in place: hooks hold the mapping
        state.averages.update({place: FisherAverage(*saved) for place, saved in _on("cpu", tree["fisher"]).items()})
        for name in _PLAIN:
            setattr(state, name, _on(device, tree[name]))
        self.tally = Tally(started=time.perf_counter() - tally.pop("seconds"), **tally)


def _on(device: Any, value: Tree) -> Tree:
    """The tree with its tensors on ``device``."""
    match value:
        case Tensor():
            return value.to(device)
        case list():
            return [_on(device, item) for item in value]
        case dict():
            return {key: _on(device, item) for key, item in value.items()}
    return value
