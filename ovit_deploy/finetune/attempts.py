"""A pruning that did not go well is tried again, a bounded number of times; then there is a verdict.

Where a loss, a gradient or a Fisher matrix is not finite, or one cannot be inverted: with ten times the damping and
other training images. Where memory runs out: with half as many images at once, down to one. Nothing that a failed
attempt did stays.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ovit_deploy.errors import NotFiniteError, PruningError, is_out_of_memory
from ovit_deploy.pruning.method import Report, write
from ovit_deploy.recipe.sparsifier import Sparsifier

if TYPE_CHECKING:
    from ovit_deploy.finetune.actions import State

MOST = 3  # attempts at something finite
STRONGER = 10.0
LEAST_DAMP = 1e-8  # after none at all
IMAGES_AT_ONCE = 64  # the first time memory runs out, half of it

T = TypeVar("T")


@dataclass(frozen=True)
class Attempt:
    """How to prune this time."""

    modifier: Sparsifier
    draw: int = 0  # of training images
    at_once: int | None = None  # images in a batch
    failures: tuple[str, ...] = field(default=())

    @property
    def details(self) -> dict[str, Any]:
        """For the record; nothing for a first attempt that went well."""
        if not self.failures:
            return {}
        damp = getattr(self.modifier, "damp", None)
        return {"failed_attempts": list(self.failures), "damp": damp, "images_at_once": self.at_once}

    def damped(self, failure: str) -> "Attempt":
        """The next one, after something was not finite."""
        damp: float | None = getattr(self.modifier, "damp", None)
        stronger = {} if damp is None else {"damp": max(STRONGER * damp, LEAST_DAMP)}
        modifier = self.modifier.model_copy(update=stronger)
        return replace(self, modifier=modifier, draw=self.draw + 1, failures=(*self.failures, failure))

    def smaller(self, error: BaseException) -> "Attempt":
        """The next one, after memory ran out."""
        at_once = self.at_once or IMAGES_AT_ONCE
        failure = f"memory ran out with {at_once} images at once"
        if at_once == 1:
            raise PruningError(f"{failure} ({error})", "lower --memory-budget or fisher_block_size") from error
        return replace(self, at_once=at_once // 2, failures=(*self.failures, failure))


def attempted(prune: Callable[[Attempt], T], modifier: Sparsifier, report: Report) -> T:
    """What ``prune`` gives at the first attempt that goes well.

    Raises:
        NotFiniteError: none of them gave something finite, or nothing can be done differently.
        PruningError: memory ran out with one image at once; or what an attempt raises itself.
    """
    attempt = Attempt(modifier)
    while True:
        try:
            return prune(attempt)
        except NotFiniteError as error:
            attempt = _after(error, attempt)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or not modifier.num_images:
                raise
            attempt = attempt.smaller(error)
        report(f"{attempt.failures[-1]}: tried again {_how(attempt)}")


def _after(error: NotFiniteError, attempt: Attempt) -> Attempt:
    if attempt.draw + 1 >= MOST:
        raise NotFiniteError(f"{error.message}, in each of {MOST} attempts", error.hint) from error
    if not attempt.modifier.num_images:
        raise error
    return attempt.damped(error.message)


def _how(attempt: Attempt) -> str:
    if attempt.failures[-1].startswith("memory"):
        return f"with {attempt.at_once}"
    damp = getattr(attempt.modifier, "damp", None)
    return "with other images" if damp is None else f"with damp {damp:g} and other images"


@contextlib.contextmanager
def undone_if_it_fails(state: "State", names: list[str], place: str) -> Iterator[None]:
    """Weights, buffers, masks and Fisher averages are put back where the block raises."""
    weights = {name: state.model.get_parameter(name).detach().clone() for name in names}
    buffers = {name: buffer.clone() for name, buffer in state.model.named_buffers()}  # batch norms' statistics
    masks, average = dict(state.masks), state.averages.get(place)
    blocks = None if average is None else dict(average.blocks)
    try:
        yield
    except BaseException:
        write(state.model, weights)
        for name, buffer in buffers.items():
            state.model.get_buffer(name).copy_(buffer)
        state.masks.clear()  # in place: hooks hold the mapping
        state.masks.update(masks)
        if average is None:
            state.averages.pop(place, None)
        elif blocks is not None:
            average.blocks = blocks
        raise
