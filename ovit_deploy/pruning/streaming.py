"""Curves of every block and the weights that follow from them, within a memory budget.

Fisher blocks, held by half, take 2 d B bytes for d weights. What does not fit is done in groups of blocks, each in a
pass of its own over the calibration samples (blocks are independent, so a group may end inside a layer). Of a group
only ranks and marginals are kept, 8 bytes a weight, and allocation needs those of all groups; so the Fisher blocks are
taken again, a group at a time, to compensate weights: 2 G passes for one sparsity with G groups. Where a folder is
given to spill to, they are read from there instead: G passes for every sparsity. Where one group is enough, its Fisher
blocks are kept and one pass serves every sparsity.

Not counted in the budget: the model and the activations of one batch, as in training.

Shape suffixes: K Fisher blocks, B weights in a block, X rows of its curvature.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.allocation import Counts, Curve
from ovit_deploy.pruning.fisher import Fishers, Span, block_size_for
from ovit_deploy.pruning.method import Calibration, Masks, Report, target_weights
from ovit_deploy.pruning.scheme import Scheme
from ovit_deploy.pruning.shelf import NOWHERE, Facts, Groups
from ovit_deploy.pruning.spill import Spilled
from ovit_deploy.pruning.spread import FREE, Spread

# At most one part in WORK_SHARE of the budget is for work: float64 copies of a few blocks, and gradients in the making.
WORK_SHARE = 4
# Larger pieces are no faster: their copies leave the cache and are fresh pages each time.
PIECE_BYTES = 2**25
# More than that is of no use to work.
WORK_BYTES_PER_THREAD = 2 * PIECE_BYTES


@dataclass(frozen=True)
class Problem:
    """What elimination starts from: a model, its targets, and how its Fisher matrices are taken.

    Args:
        model: At the weights around which the loss is expanded.
        masks: The targets and their kept weights.
        calibration: The samples.
        num_grads: How many of them make the Fisher matrices.
        block_size: Requested block size.
        damping: Added to the diagonal.
        memory_budget: Bytes; at most a quarter is for work, the rest for Fisher blocks.
        report: Told what goes on.
        scheme: What is held of a block, and the order and update that follow from it.
        spread: Bounds and prices of layers.
        spill: Folder for Fisher blocks that do not fit in the budget together; None takes them twice.
        weight_bits: Bits of the integers that kept weights are rounded to; None leaves them as they are.
    """

    model: nn.Module
    masks: Masks
    calibration: Calibration
    num_grads: int
    block_size: int
    damping: float
    memory_budget: int
    report: Report
    scheme: Scheme
    spread: Spread = FREE
    spill: Path | None = None
    weight_bits: int | None = None

    @property
    def work_bytes(self) -> int:
        """Bytes for gradients and inverses in the making."""
        largest = max(self.scheme.work_bytes(self.block_size_of(mask), self.num_grads) for mask in self.masks.values())
        enough = max(largest, WORK_BYTES_PER_THREAD * torch.get_num_threads())
        return min(self.memory_budget // WORK_SHARE, enough)

    def block_size_of(self, weight: Tensor) -> int:
        """The block size that a weight takes."""
        return block_size_for(weight.numel(), self.block_size, self.scheme.pattern.group)


@dataclass(frozen=True)
class Solution:
    """Curves of every weight, and all that a sparsity needs to become weights.

    Args:
        curves: Elimination of each weight.
        jitter: Largest jitter of each weight's blocks, in multiples of the mean diagonal; 0 if none was needed.
        groups: The spans that were done together.
        mean_loss: Of the calibration samples.
        fishers: The Fisher blocks, if one group was enough.
        spilled: The Fisher blocks on disk, if there are several groups and a folder for them.
    """

    curves: dict[str, Curve]
    jitter: dict[str, float]
    groups: list[list[Span]]
    mean_loss: float
    fishers: Fishers | None
    spilled: Spilled | None = None

    @property
    def passes(self) -> int:
        """Passes over the calibration samples that one sparsity takes."""
        return len(self.groups) if self.fishers or self.spilled else 2 * len(self.groups)


def eliminate_all(problem: Problem) -> Solution:
    """Eliminate in every block of every target.

    Raises:
        PruningError: The budget does not hold one block, or calibration gives other samples at each pass.
    """
    groups = plan(problem)
    check_together(problem, groups)
    weights = target_weights(problem.model, problem.masks)
    curves = {name: empty_curve(problem, weight) for name, weight in weights.items()}
    kept = None
    spilled = None if problem.spill is None or len(groups) == 1 else Spilled(problem.spill, held_bytes(problem, groups))
    start = {"jitter": dict.fromkeys(weights, 0.0), "mean_loss": math.nan}
    part = going_on(problem, "eliminated", tensors_of(curves), start, worth_it=len(groups) > 1 and spilled is None)
    for number, group in part.remaining(groups):
        text = f"Fisher blocks, group {number} of {len(groups)}"
        found = group_fishers(problem, group, text, part.facts["mean_loss"])
        part.facts["mean_loss"] = found.mean_loss
        eliminate_group(problem, found, weights, curves, part.facts["jitter"])
        kept = found if len(groups) == 1 else None
        if spilled is not None:
            spilled.put(found)
        del found  # before those of the next group are made: the budget holds one group
    return Solution(curves, part.facts["jitter"], groups, part.facts["mean_loss"], kept, spilled)


def going_on(problem: Problem, name: str, tensors: dict[str, Tensor], facts: Facts, *, worth_it: bool) -> Groups:
    """What groups have given so far; kept on the shelf where every group takes a pass over the images."""
    shelf = problem.calibration.shelf if worth_it else NOWHERE
    return Groups(shelf, name, tensors, facts, writes=problem.calibration.ranks.is_first)


def tensors_of(curves: dict[str, Curve]) -> dict[str, Tensor]:
    """What curves are made of."""
    ranks = {f"rank {name}": curve.rank_KB for name, curve in curves.items()}
    return ranks | {f"marginal {name}": curve.marginal_KB for name, curve in curves.items()}


def eliminate_group(
    problem: Problem,
    found: Fishers,
    weights: dict[str, Tensor],
    curves: dict[str, Curve],
    jitter: dict[str, float],
) -> None:
    """Eliminate in the blocks of a group, into ``curves`` and ``jitter``."""
    for span, held in found.blocks.items():
        worst = eliminate_span(problem, span, held, weights[span.name], curves[span.name])
        jitter[span.name] = max(jitter[span.name], worst)


@dataclass(frozen=True)
class Settled:
    """What came of it.

    Args:
        weights: New values.
        kept: Which weights [K, B] are kept.
        loss: Predicted increase of the loss.
        swaps: How many weights came back for others after elimination.
    """

    weights: dict[str, Tensor]
    kept: dict[str, Tensor]
    loss: float
    swaps: int


def compensate_all(problem: Problem, solution: Solution, counts: Counts) -> Settled:
    """New weights once ``counts`` are removed from each block."""
    weights = target_weights(problem.model, problem.masks)
    kept = kept_masks(solution.curves, counts, problem.scheme.pattern.unit)
    ordered = {name: kept_KB.clone() for name, kept_KB in kept.items()}
    changed = {f"weight {name}": weight for name, weight in weights.items()}
    changed |= {f"kept {name}": kept_KB for name, kept_KB in kept.items()}
    again = not (solution.fishers or solution.spilled)
    part = going_on(problem, "compensated", changed, {"loss": 0.0}, worth_it=again)
    for number, group in part.remaining(solution.groups):
        found = solution.fishers or fishers_again(problem, solution, group, number)
        part.facts["loss"] += compensate_group(problem, found, weights, kept)
        del found  # before those of the next group are made
    swaps = sum(int((kept[name] & ~ordered[name]).sum()) for name in kept)
    return Settled(weights, kept, part.facts["loss"], swaps)


def fishers_again(problem: Problem, solution: Solution, group: list[Span], number: int) -> Fishers:
    """The Fisher blocks of a group, from disk or in another pass."""
    if solution.spilled is not None:
        like = problem.model.get_parameter(group[0].name)
        return solution.spilled.get(group, solution.mean_loss, like)
    text = f"Fisher blocks again, group {number} of {len(solution.groups)}"
    return group_fishers(problem, group, text, solution.mean_loss)


def compensate_group(problem: Problem, found: Fishers, weights: dict[str, Tensor], kept: dict[str, Tensor]) -> float:
    """Write new values into the weights of a group, and what is kept in the end; returns the predicted increase."""
    return sum(
        compensate_span(problem, span, held, weights[span.name], kept[span.name]) for span, held in found.blocks.items()
    )


def kept_masks(curves: dict[str, Curve], counts: Counts, unit: int = 1) -> dict[str, Tensor]:
    """Which weights [K, B] are kept once ``counts`` units are removed from each block."""
    return {
        name: (curve.rank_KB > counts[name][:, None]).repeat_interleave(unit, dim=1) for name, curve in curves.items()
    }


def plan(problem: Problem) -> list[list[Span]]:
    """All blocks in order, cut into groups whose Fisher blocks fit in the budget."""
    parameters = dict(problem.model.named_parameters())
    groups: list[list[Span]] = [[]]
    room = capacity = problem.memory_budget - problem.work_bytes
    for name, mask in problem.masks.items():
        block = problem.block_size_of(mask)
        bytes_per_block = problem.scheme.num_held(block, problem.num_grads) * parameters[name].element_size()
        needed = problem.scheme.work_bytes(block, problem.num_grads)
        if needed > problem.work_bytes:
            raise PruningError(
                f"{problem.memory_budget} bytes are too few to work on a Fisher block of {block} weights of {name}",
                f"give at least {needed * WORK_SHARE} bytes, or smaller blocks",
            )
        start, num_blocks = 0, mask.numel() // block
        while start < num_blocks:
            fitting = min(room // bytes_per_block, num_blocks - start)
            if fitting == 0:
                groups.append([])
                room = capacity
                continue
            groups[-1].append(Span(name, start, start + fitting, block, problem.scheme.pattern.tile))
            start += fitting
            room -= fitting * bytes_per_block
    return groups


def check_together(problem: Problem, groups: list[list[Span]]) -> None:
    """Refuse a budget that does not hold all blocks at once where weights are rounded: a scale is that of a channel.

    Raises:
        PruningError: There are several groups.
    """
    if problem.weight_bits is not None and len(groups) > 1:
        raise PruningError(
            "the Fisher blocks do not fit in the memory budget all at once, which weight_bits needs",
            "raise the memory budget, take smaller blocks, or leave weight_bits out",
        )


def held_bytes(problem: Problem, groups: list[list[Span]]) -> int:
    """Bytes of what is held of all blocks."""
    return sum(
        len(span)
        * problem.scheme.num_held(span.block_size, problem.num_grads)
        * problem.model.get_parameter(span.name).element_size()
        for group in groups
        for span in group
    )


def group_fishers(problem: Problem, group: list[Span], text: str, expected_loss: float) -> Fishers:
    """One pass over the calibration samples; their mean loss must be that of the passes before, if there were any."""
    problem.report(f"{text}: {problem.num_grads} gradients of {len({span.name for span in group})} weights")
    found = problem.scheme.collect(
        problem.model,
        group,
        problem.masks,
        problem.calibration,
        num_grads=problem.num_grads,
        damping=problem.damping,
        work_bytes=problem.work_bytes,
    )
    if not math.isnan(expected_loss) and not math.isclose(expected_loss, found.mean_loss, rel_tol=1e-4):
        raise PruningError(
            f"calibration gave other samples at a second pass (loss {expected_loss:.6g}, then {found.mean_loss:.6g})",
            "it must give the same samples each time: no shuffling, no random augmentation; or raise the memory budget",
        )
    return found


def empty_curve(problem: Problem, weight: Tensor) -> Curve:
    """A curve to fill in, on the CPU."""
    unit, block = problem.scheme.pattern.unit, problem.block_size_of(weight)
    shape = (weight.numel() // block, block // unit)
    return Curve(torch.zeros(shape, dtype=torch.int32), torch.zeros(shape))


def eliminate_span(problem: Problem, span: Span, held: Tensor, weight: Tensor, curve: Curve) -> float:
    """Eliminate in the blocks of a span, into its curve; returns the largest jitter."""

    def run(piece: Span) -> float:
        curvature_KXB = problem.scheme.whole(held[within(piece, span)], span.block_size)
        active_KB = piece.cut(problem.masks[span.name]).to(held.device)
        found, jitter_K = problem.scheme.order(piece.cut(weight), curvature_KXB, active_KB)
        curve.rank_KB[piece.start : piece.stop] = found.rank_KB.cpu()
        curve.marginal_KB[piece.start : piece.stop] = found.marginal_KB.cpu().float()
        return float(jitter_K.max())

    return max(by_pieces(problem, span, run))


def compensate_span(problem: Problem, span: Span, held: Tensor, weight: Tensor, kept_KB: Tensor) -> float:
    """Write new values into a span of ``weight``, and what is kept in the end; returns the predicted increase."""

    def run(piece: Span) -> float:
        w_KB, curvature_KXB = piece.cut(weight), problem.scheme.whole(held[within(piece, span)], span.block_size)
        active_KB = piece.cut(problem.masks[span.name]).to(w_KB.device)
        still_KB = kept_KB[piece.start : piece.stop].to(w_KB.device)
        still_KB = problem.scheme.settle(w_KB, curvature_KXB, active_KB, still_KB)
        u_KB = problem.scheme.update(w_KB, curvature_KXB, active_KB, still_KB).to(w_KB.dtype)
        kept_KB[piece.start : piece.stop] = still_KB.to(kept_KB.device)
        loss = problem.scheme.loss(u_KB.double() - w_KB.double(), curvature_KXB)
        piece.put(weight, u_KB)
        return loss

    return sum(by_pieces(problem, span, run))


def within(piece: Span, span: Span) -> slice:
    """Where the blocks of a piece stand among those of its span."""
    return slice(piece.start - span.start, piece.stop - span.start)


def by_pieces(problem: Problem, span: Span, run: Callable[[Span], float]) -> list[float]:
    """Run on pieces of a span whose float64 copies fit in the working memory, a thread for each piece."""
    block_bytes = problem.scheme.work_bytes(span.block_size, problem.num_grads)
    with one_thread_each() as num_threads:
        workers = max(1, min(num_threads, problem.work_bytes // block_bytes))
        piece_bytes = min(problem.work_bytes // workers, PIECE_BYTES)
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(run, span.pieces(max(1, piece_bytes // block_bytes))))


@contextmanager
def one_thread_each() -> Iterator[int]:
    """torch stays on the thread that calls it; gives the number of threads it had.

    Matrices of a few hundred rows are not worth a second thread: waking it for each of them makes batched
    factorisations several times slower than one thread is.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield num_threads
    finally:
        torch.set_num_threads(num_threads)
