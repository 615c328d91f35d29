"""Latency tables: what each linear layer saves at each sparsity, measured in context.

For each layer of each kind of block, three copies of the block with that layer alone sparse are timed beside three
dense ones. A saving is the fraction of the time that goes, times the dense time of the reference session: a machine
that is slower in one session than in another changes little.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from ovit_deploy.explain import pieces
from ovit_deploy.explain.forms import COPIES, Form, value_ms
from ovit_deploy.explain.pieces import LAYERS, Pattern
from ovit_deploy.explain.session import Bench, Timed

SPARSITIES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class Table:
    """Predicted times of a model.

    Args:
        dense_ms: The whole model without zeros.
        saved_ms: By name of a weight and its sparsity; negative where the engine gets slower.
    """

    dense_ms: float
    saved_ms: dict[str, dict[float, float]]


def latency_table(
    bench: Bench, dense: Form, *, pattern: Pattern = "unstructured", sparsities: Sequence[float] = SPARSITIES
) -> Table:
    """The table of the four linear layers of every block.

    Args:
        bench: Holds the model.
        dense: Engine and precision.
        pattern: How the zeros lie.
        sparsities: Fractions of zeros.

    Raises:
        EngineError: The engine fails on a piece.
    """
    assert dense == dense.dense
    blocks = pieces.kinds(bench.workshop.model)
    whole = dense.whole(Counter(blocks))
    reference = bench.rounds(list(whole))
    by_kind: dict[tuple[int, str], dict[float, float]] = {}
    for kind in dict.fromkeys(blocks):
        three_ms = median(reference[dense.timed((kind,) * COPIES)])
        for layer in LAYERS:
            bench.watch.report(f"blocks like {kind}: {layer}")
            fractions = _saved_fractions(bench, dense.timed((kind,) * COPIES), layer, pattern, sparsities)
            by_kind[kind, layer] = {s: fraction * three_ms / COPIES for s, fraction in fractions.items()}
    saved = {f"blocks.{n}.{layer}.weight": by_kind[kind, layer] for n, kind in enumerate(blocks) for layer in LAYERS}
    return Table(value_ms(whole, reference), saved)


def _saved_fractions(
    bench: Bench, dense: Timed, layer: str, pattern: Pattern, sparsities: Sequence[float]
) -> dict[float, float]:
    """The fraction of the dense time that goes when one layer of each copy gets sparse."""
    sparse = {s: with_one_sparse(dense, layer, pattern, s) for s in sparsities}
    rounds = bench.rounds([dense, *sparse.values()])
    return {
        s: median(1 - own / full for own, full in zip(rounds[timed], rounds[dense], strict=True))
        for s, timed in sparse.items()
    }


def with_one_sparse(dense: Timed, layer: str, pattern: Pattern, sparsity: float) -> Timed:
    """The same piece with zeros in one layer of every block."""
    zeros = tuple(sparsity if one == layer else 0.0 for one in LAYERS)
    return replace(dense, piece=replace(dense.piece, zeros=zeros, pattern=pattern))
