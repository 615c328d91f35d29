"""What heads and neurons take on an engine, measured in context, and recipes that remove them to a given time.

Three copies of a block with fewer heads, or with a narrower MLP, are timed beside three whole ones: what attention
takes is a curve over heads, what an MLP takes one over neurons. Engines round sizes up to their tiles, so curves have
steps that operations do not tell of; times of the two add up, as they run one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from ovit_deploy.errors import ModelError, PruningError, RecipeError
from ovit_deploy.explain import pieces
from ovit_deploy.explain.forms import COPIES, Combination, Form, added, value_ms
from ovit_deploy.explain.session import Bench
from ovit_deploy.finetune.thinning import times_of
from ovit_deploy.recipe import Recipe
from ovit_deploy.recipe.quantization import QuantizationModifier
from ovit_deploy.recipe.structured import Latency, StructuredModifier
from ovit_deploy.recipe.write import header_of, write
from ovit_deploy.structure import structure_of

_POINTS = 6  # of each curve
_STEP = 1e-6  # of final_sparsity, which is a decimal


@dataclass(frozen=True)
class Thinning:
    """Which parts are to go for a time.

    Args:
        latency: What parts take.
        dense_ms: The model as it is, by these figures.
        recipe: That removes parts to the time.
    """

    latency: Latency
    dense_ms: float
    recipe: Recipe


def thins(recipe: Recipe) -> bool:
    """Whether a recipe removes parts, so that a target latency is for them."""
    return any(isinstance(modifier, StructuredModifier) for modifier in recipe.modifiers)


def form_of(recipe: Recipe, engine: str) -> Form:
    """What is to be measured for a recipe: without zeros, as those are pruned where parts are gone."""
    quantizes = any(isinstance(one, QuantizationModifier) for one in recipe.modifiers)
    return Form(engine, precision="int8" if quantizes else "fp32")


def latency_of_parts(bench: Bench, form: Form, *, multiple_of: int = 32) -> Latency:
    """Curves of heads and widths.

    Args:
        bench: Holds the model.
        form: Engine and precision.
        multiple_of: Widths that are timed divide by it.

    Raises:
        ModelError: Parts of the model cannot be removed, or its blocks differ.
        EngineError: The engine fails on a piece.
    """
    heads, width = _sizes(bench.workshop.model)
    counts, widths = spaced(heads, 1), spaced(width, multiple_of)
    sizes = [*((count, width) for count in counts), *((heads, count) for count in widths)]
    blocks = {one: _block(form, one) for one in dict.fromkeys(sizes)}
    rounds = bench.rounds([timed for block in [form.ends, *blocks.values()] for timed in block])
    ms = {one: value_ms(block, rounds) for one, block in blocks.items()}
    heads_ms = rising({count: ms[count, width] for count in counts})
    width_ms = rising({count: ms[heads, count] for count in widths})
    return Latency(
        engine=form.engine,
        batch_size=bench.workshop.batch_size,
        threads=bench.settings.threads,
        heads_ms=heads_ms,
        width_ms=width_ms,
        block_ms=max(0.0, ms[heads, width] - heads_ms[heads] - width_ms[width]),
        rest_ms=max(0.0, value_ms(form.ends, rounds)),
    )


def spaced(most: int, multiple_of: int) -> list[int]:
    """A few counts up to ``most``, multiples all but the last, the least of them first."""
    steps = max(1, most // multiple_of)
    chosen = {max(1, round(steps * number / _POINTS)) for number in range(1, _POINTS + 1)} | {1}
    return sorted({min(most, step * multiple_of) for step in chosen} | {most})


def rising(ms: dict[int, float]) -> dict[int, float]:
    """What is added from the least count on; noise lets nothing get cheaper with more parts."""
    counts, found, highest = sorted(ms), {}, 0.0
    for count in counts:
        highest = max(highest, ms[count] - ms[counts[0]])
        found[count] = round(highest, 6)
    return found


def thinned_to(recipe: Recipe, latency: Latency, model: nn.Module, target_ms: float) -> Thinning:
    """``recipe`` with budget latency, these figures, and the share of the time that has to go.

    Args:
        recipe: Has one modifier that removes parts.
        latency: What parts take.
        model: As it is before.
        target_ms: What it may take.

    Raises:
        RecipeError: Several modifiers remove parts.
        PruningError: The time needs no pruning.
    """
    hint = "use HeadWidthPruningModifier for heads and neurons"
    modifier = recipe.only(StructuredModifier, "a target latency needs one modifier that removes parts", hint)
    if modifier.parts in (("channels",), ("embedding",)):
        raise RecipeError(
            f"{recipe.source}: what {modifier.parts[0]} takes is not measured", "give it a budget of flops"
        )
    dense_ms = predicted_ms(latency, model)
    if target_ms >= dense_ms:
        raise PruningError(
            f"{target_ms:g} ms need no pruning: the model takes about {dense_ms:.4g} ms", "ask for less time"
        )
    final = min(1 - target_ms / dense_ms + _STEP, 1 - _STEP)
    said = modifier.model_dump(exclude_unset=True)
    values = said | {"budget": "latency", "latency": latency.model_dump(), "final_sparsity": final}
    if modifier.init_sparsity:
        values["init_sparsity"] = modifier.init_sparsity * final / modifier.final_sparsity
    other = type(modifier).model_validate(values)
    modifiers = tuple(other if one is modifier else one for one in recipe.modifiers)
    changed = recipe.model_copy(update={"modifiers": modifiers})
    changed = changed.model_copy(update={"text": write(changed, header_of(recipe.text))})
    return Thinning(latency, dense_ms, changed)


def predicted_ms(latency: Latency, model: nn.Module) -> float:
    """What a model takes by these figures."""
    return times_of(latency).of(structure_of(model)) / 1e6


def _sizes(model: nn.Module) -> tuple[int, int]:
    sizes: Sequence[tuple[int, int]] = [(block.heads, block.width) for block in structure_of(model).blocks]
    if len(set(pieces.kinds(model))) > 1:
        raise ModelError(
            "blocks of the model differ: what their parts take is not measured", "start from the model before thinning"
        )
    return sizes[0]


def _block(form: Form, sizes: tuple[int, int]) -> Combination:
    """One block of such sizes among others."""
    whole = form.timed((0,) * COPIES)
    timed = replace(whole, piece=replace(whole.piece, sizes=sizes))
    return added((1 / COPIES, {timed: 1.0}), (-1 / COPIES, form.ends))
