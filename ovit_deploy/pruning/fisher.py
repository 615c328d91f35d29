"""Block empirical Fisher matrices, their inverses, and the quadratic model of the loss that they make.

A weight is flattened row-major and cut into blocks of B consecutive weights. With the gradients g_i of m samples::

    F_b = damping I + 1/m sum_i g_ib g_ib^T

accumulated a batch of samples at a time, and held by half (kernels/triangle). Gradients at pruned weights are masked:
their rows and columns of F_b are ``damping I``, and F_b^-1 is the inverse over the active weights only.

Shape suffixes: N samples, K Fisher blocks, B weights in a block, H numbers held of its matrix, P kept weights of it, R
rows of a weight seen as a matrix, I its columns.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ovit_deploy.errors import NotFiniteError, PruningError
from ovit_deploy.kernels import triangle
from ovit_deploy.pruning.average import FisherAverage
from ovit_deploy.pruning.damping import Damping, damp, fourth_powers, sampling_error
from ovit_deploy.pruning.gradients import SampleGradients
from ovit_deploy.pruning.method import Calibration, Masks
from ovit_deploy.pruning.samples import batch_gradients, mean_over_images, share
from ovit_deploy.pruning.tiles import Tile, positions

JITTERS = [10.0**exponent for exponent in range(-12, 1)]
# Gradients in larger chunks are fresh pages each time, in smaller ones their factors are read too often.
CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class Span:
    """A run of Fisher blocks of one weight: blocks ``start`` to ``stop`` of ``block_size`` weights each.

    Blocks hold whole tiles of the weight (tiles.py), which are single weights or runs of a row for most.
    """

    name: str
    start: int
    stop: int
    block_size: int
    tile: Tile = (1, 1)

    def __len__(self) -> int:
        return self.stop - self.start

    def cut(self, tensor: Tensor) -> Tensor:
        """This span's part of a tensor shaped like the weight: [K, B]; a view where tiles have one row."""
        if self.tile[0] == 1:
            return tensor.reshape(-1, self.block_size)[self.start : self.stop]
        return tensor.reshape(-1)[self.positions(tensor[0].numel()).to(tensor.device)].unflatten(0, (len(self), -1))

    def put(self, tensor: Tensor, part_KB: Tensor) -> None:
        """Write this span's part of a tensor shaped like the weight."""
        if self.tile[0] == 1:
            self.cut(tensor).copy_(part_KB)
        else:
            tensor.view(-1)[self.positions(tensor[0].numel()).to(tensor.device)] = part_KB.flatten()

    def positions(self, row: int) -> Tensor:
        """Where this span's weights stand in the weight, whose rows are ``row`` long."""
        return positions(self.start * self.block_size, self.stop * self.block_size, row, self.tile)

    def pieces(self, num_blocks: int) -> Iterator["Span"]:
        """The span in runs of at most ``num_blocks`` blocks."""
        for start in range(self.start, self.stop, num_blocks):
            yield replace(self, start=start, stop=min(start + num_blocks, self.stop))


def block_size_for(size: int, requested: int, group: int = 1) -> int:
    """The smallest divisor of ``size`` that is at least ``requested``; ``size`` itself where it is smaller.

    A block holds whole groups: of the divisors only multiples of ``group`` count.

    Blocks cover a tensor without a remainder. With a row length that is a multiple of the block size no block crosses
    an output row. A size whose divisors lie far apart gets larger blocks than asked for, never smaller ones.
    """
    assert size > 0 and requested > 0 and size % group == 0
    num_groups, least = size // group, -(-min(requested, size) // group)
    return group * next(divisor for divisor in range(least, num_groups + 1) if num_groups % divisor == 0)


@dataclass(frozen=True)
class Fishers:
    """What is held of the Fisher blocks of some spans [K, H], or of what a method has instead.

    Args:
        blocks: Of each span; :meth:`ovit_deploy.pruning.scheme.Scheme.whole` makes matrices of it.
        mean_loss: Of the samples.
    """

    blocks: dict[Span, Tensor]
    mean_loss: float


def fishers(
    model: nn.Module,
    spans: Sequence[Span],
    masks: Masks,
    calibration: Calibration,
    *,
    num_grads: int,
    damping: float,
    work_bytes: int,
    damping_kind: Damping = "absolute",
    average: FisherAverage | None = None,
) -> Fishers:
    """Fisher blocks of ``spans`` in one pass over the calibration samples.

    Args:
        model: Gradients are taken at its present weights.
        spans: Which blocks; others cost nothing.
        masks: Kept weights (True) of every weight that has a span.
        calibration: At least ``num_grads`` samples.
        num_grads: m, the samples used.
        damping: Added to the diagonal.
        work_bytes: Per-sample gradients are formed in chunks of about this size.
        damping_kind: What ``damping`` is a multiple of: damping.py.
        average: Takes the new Fisher matrices in; what is damped and given back is the average.
    """
    if average is not None:
        check_whole(spans, masks)
    blocks = {span: empty_blocks(model, span, triangle.num_held(span.block_size)) for span in spans}

    fourth = {span: torch.zeros(len(span), dtype=torch.float64, device=blocks[span].device) for span in spans}

    def add(span: Span, part: slice, first: int, gradient_KNB: Tensor) -> None:
        triangle.add_products(blocks[span][part], gradient_KNB, 1 / num_grads)
        if damping_kind == "robust":
            fourth[span][part] += fourth_powers(gradient_KNB)

    sums = [*blocks.values(), *fourth.values()]
    loss = each_gradient(
        model, spans, masks, calibration, num_grads=num_grads, work_bytes=work_bytes, consume=add, sums=sums
    )
    for span, held_KH in blocks.items():
        calibration.ranks.reduce(held_KH)
        calibration.ranks.reduce(fourth[span])
        check_finite(span, held_KH)
        active_KB = span.cut(masks[span.name])
        error_K = fourth[span]
        if damping_kind == "robust":
            error_K = sampling_error(triangle.squares(held_KH, span.block_size), fourth[span], num_grads)
        if average is not None:
            average.update(span.name, held_KH, active_KB)
        damp(held_KH, active_KB, damping, damping_kind, error_K)
    return Fishers(blocks, loss)


def check_finite(span: Span, held_KH: Tensor) -> None:
    """Refuse sums of squares that have overflowed: no entry is larger than the largest of the diagonal."""
    if not bool(triangle.diagonal(held_KH, span.block_size).isfinite().all()):
        raise NotFiniteError(
            f"the Fisher matrix of {span.name} is not finite: gradients are too large to be squared",
            "check the checkpoint, and that images are normalised as the model expects",
        )


def check_whole(spans: Sequence[Span], masks: Masks) -> None:
    """An average is that of whole weights, each taken once a pruning."""
    if sum(len(span) * span.block_size for span in spans) < sum(mask.numel() for mask in masks.values()):
        raise PruningError(
            "the Fisher blocks do not fit in the memory budget all at once, beside their moving average",
            "raise the memory budget, take smaller blocks, or set fisher_ema to 0",
        )


def empty_blocks(model: nn.Module, span: Span, *shape: int) -> Tensor:
    """Zeros [K, *shape] where the span's weight is."""
    return model.get_parameter(span.name).detach().new_zeros(len(span), *shape)


def each_gradient(
    model: nn.Module,
    spans: Sequence[Span],
    masks: Masks,
    calibration: Calibration,
    *,
    num_grads: int,
    work_bytes: int,
    consume: Callable[[Span, slice, int, Tensor], None],
    sums: Sequence[Tensor],
) -> float:
    """Hand on the masked gradients of ``num_grads`` samples, a few blocks and one batch at a time.

    Args:
        model: See :func:`fishers`, as for what is not told here.
        spans: Which blocks.
        masks: Kept weights (True).
        calibration: At least ``num_grads`` samples.
        num_grads: Samples used.
        work_bytes: Gradients are formed in chunks of about this size.
        consume: Gets the span, which of its blocks, the number of the first sample, and gradients [K, N, B].
        sums: All that ``consume`` changes, so that a pass that is cut off can go on.

    Returns:
        The mean loss of the samples.
    """
    by_name: dict[str, list[Span]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    seen = 0

    def arrived(name: str, gradients: SampleGradients) -> None:
        for span in by_name[name]:
            for piece, gradient_KNB in block_gradients(span, gradients, masks[name], work_bytes):
                consume(span, slice(piece.start - span.start, piece.stop - span.start), seen, gradient_KNB)

    total_loss = torch.zeros((), dtype=torch.float64)
    named = {f"loss, for {spans}": total_loss} | {str(place): total for place, total in enumerate(sums)}
    for seen, images, labels in share(calibration, num_grads, named):
        total_loss += batch_gradients(model, by_name, images, labels, calibration, seen, arrived)
    return mean_over_images(calibration, total_loss, num_grads)


def block_gradients(
    span: Span, gradients: SampleGradients, mask: Tensor, work_bytes: int
) -> Iterator[tuple[Span, Tensor]]:
    """The masked gradients of one batch [K, N, B], a piece of the span at a time."""
    for piece, gradient_KNB in gradient_pieces(span, gradients, work_bytes):
        kept_KB = piece.cut(mask).to(gradient_KNB.device)
        yield piece, gradient_KNB if bool(kept_KB.all()) else gradient_KNB.mul_(kept_KB[:, None, :])


def gradient_pieces(span: Span, gradients: SampleGradients, work_bytes: int) -> Iterator[tuple[Span, Tensor]]:
    """The gradients of a batch at the blocks of a span, some blocks at a time: [K, N, B]."""
    block, row, rows = span.block_size, gradients.inputs_NTGI.shape[3], span.tile[0]
    band = rows * row
    num_samples, bytes_per_number = len(gradients.inputs_NTGI), gradients.inputs_NTGI.element_size()
    chunk = max(1, min(work_bytes, CHUNK_BYTES) // (3 * num_samples * (block + 2 * band) * bytes_per_number))
    for piece in span.pieces(chunk):
        first, last = piece.start * block // band, -(-piece.stop * block // band)
        flat_N = gradients.rows(first * rows, last * rows).flatten(1)
        if rows == 1:
            offset = piece.start * block - first * band
            flat_N = flat_N[:, offset : offset + len(piece) * block]
        else:
            flat_N = flat_N[:, piece.positions(row).to(flat_N.device) - first * band]
        yield piece, flat_N.unflatten(1, (len(piece), block)).transpose(0, 1)


def invert(fisher_KBB: Tensor, active_KB: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse over the active weights, in float64; inactive rows and columns are those of the identity.

    A block that is not positive definite gets growing multiples of its mean diagonal added to its diagonal.

    Returns:
        The inverses, and the multiple that each block needed [K], 0 for most.

    Raises:
        PruningError: A block cannot be inverted whatever is added.
    """
    return with_jitter(inverses, restrict(fisher_KBB, active_KB))


def inverses(matrix_KBB: Tensor) -> tuple[Tensor, Tensor]:
    """Inverses of positive definite matrices in float64, and which are not so [K]."""
    from ovit_deploy.kernels import inverse  # imports numba, which takes a second

    if not matrix_KBB.is_cuda and matrix_KBB.shape[1] <= inverse.MOST_ROWS:
        return inverse.inverses(matrix_KBB)
    factor_KBB, failed_K = torch.linalg.cholesky_ex(matrix_KBB.double())
    return torch.cholesky_inverse(factor_KBB), failed_K


def restrict(fisher_KBB: Tensor, active_KB: Tensor) -> Tensor:
    """F over the active weights, the identity elsewhere."""
    active = active_KB.to(fisher_KBB)
    if bool(active_KB.all()):
        return fisher_KBB
    restricted_KBB = (fisher_KBB * active[:, :, None]).mul_(active[:, None, :])
    restricted_KBB.diagonal(dim1=1, dim2=2).add_(1 - active)
    return restricted_KBB


def cholesky(matrix_KBB: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors, with jitter where needed; returns factors and the multiples of the mean diagonal added."""
    return with_jitter(torch.linalg.cholesky_ex, matrix_KBB)


def with_jitter(function: Callable[[Tensor], tuple[Tensor, Tensor]], matrix_KBB: Tensor) -> tuple[Tensor, Tensor]:
    """What a function makes of positive definite matrices, after growing multiples of the mean diagonal where needed.

    Args:
        function: Returns its results, and for which matrices it has none [K].
        matrix_KBB: The matrices.

    Returns:
        Results, and the multiples of the mean diagonal that were added [K], 0 for most.

    Raises:
        PruningError: A matrix is not positive definite whatever is added.
    """
    result_KBB, failed_K = function(matrix_KBB)
    jitter_K = torch.zeros(len(matrix_KBB), dtype=torch.float64, device=matrix_KBB.device)
    mean_K = matrix_KBB.diagonal(dim1=1, dim2=2).double().mean(dim=1)
    for jitter in JITTERS:
        (bad,) = failed_K.nonzero(as_tuple=True)
        if len(bad) == 0:
            return result_KBB, jitter_K
        jittered_KBB = matrix_KBB[bad].double()
        jittered_KBB.diagonal(dim1=1, dim2=2).add_(jitter * mean_K[bad, None])
        result_KBB[bad], failed_K[bad] = function(jittered_KBB)
        jitter_K[bad] = jitter
    if bool(failed_K.any()):
        raise NotFiniteError(
            "a Fisher block cannot be inverted: its gradients are all zero or not finite",
            "raise damping, such as 1e-8, or use more calibration samples",
        )
    return result_KBB, jitter_K


def places(kept_KB: Tensor) -> tuple[Tensor, Tensor]:
    """Where the kept weights of each block stand [K, P], P of the block that keeps most; the rest of a row is not kept.

    Returns:
        The places, and which of them are kept [K, P].
    """
    most = max([1, *kept_KB.sum(dim=1).tolist()])
    at_KP = (~kept_KB).byte().argsort(dim=1, stable=True)[:, :most]
    return at_KP, kept_KB.gather(1, at_KP)


def compensate(w_KB: Tensor, fisher_KBB: Tensor, kept_KB: Tensor) -> Tensor:
    """The best values of the kept weights once the others are zero.

    Minimises ``1/2 (u - w)^T F (u - w)`` over the kept weights P with the pruned ones S at zero::

        u_P = w_P + F_PP^-1 F_PS w_S

    Only as many rows of F_PP are factorised as the block has that keeps most; other blocks are filled up with the
    identity.

    Returns:
        u in float64, exact zeros where pruned.
    """
    w_KB = w_KB.double()
    gone_KB = w_KB.masked_fill(kept_KB, 0)
    at_KP, inside_KP = places(kept_KB)
    blocks_K = torch.arange(len(w_KB), device=w_KB.device)[:, None]
    rows_KPB = fisher_KBB[blocks_K, at_KP].double()
    pull_KP = (rows_KPB @ gone_KB[:, :, None]).squeeze(2).masked_fill(~inside_KP, 0)
    factor_KPP, _ = cholesky(restrict(rows_KPB.gather(2, at_KP[:, None, :].expand(-1, at_KP.shape[1], -1)), inside_KP))
    change_KP = torch.cholesky_solve(pull_KP[:, :, None], factor_KPP).squeeze(2)
    return w_KB.scatter_add(1, at_KP, change_KP).masked_fill(~kept_KB, 0)


def predicted_loss(change_KB: Tensor, fisher_KBB: Tensor) -> float:
    """``sum_b 1/2 d_b^T F_b d_b``."""
    change_KB = change_KB.double()
    return float((change_KB * (fisher_KBB.double() @ change_KB[:, :, None]).squeeze(2)).sum() / 2)
