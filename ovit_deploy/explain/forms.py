"""Forms that a model may run in, and the time of the whole from the times of its pieces.

    ends  = t(no blocks)                                 patch embedding, last norm, head
    block = (t(3 copies) - t(no blocks)) / 3             in context, one figure for each kind of block
    whole = ends + sum over kinds of count * block

All of it is linear in what is measured, so a quantity is a mapping from timed pieces to factors, and its value is taken
in every round of a session by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from ovit_deploy.bench.verdict import SpeedUp, speed_up
from ovit_deploy.engines.selection import Selection
from ovit_deploy.explain.pieces import LAYERS, File, Part, Pattern, Piece
from ovit_deploy.explain.session import Rounds, Timed

COPIES = 3
Combination = Mapping[Timed, float]


@dataclass(frozen=True)
class Form:
    """An engine, and what is done to the model for it.

    Args:
        engine: With options, where there are any.
        sparsity: Fraction of zeros in the linear layers of blocks.
        precision: Of products.
        pattern: How the zeros lie.
        part: ``all``, or ``half MLP``.
    """

    engine: str
    sparsity: float = 0.0
    precision: Literal["fp32", "int8"] = "fp32"
    pattern: Pattern = "unstructured"
    part: Part = "all"

    @property
    def dense(self) -> "Form":
        """The same without zeros."""
        return replace(self, sparsity=0.0, pattern="unstructured", part="all")

    @property
    def what(self) -> str:
        """The form in words, without the engine."""
        zeros = f"{100 * self.sparsity:g} % zeros" if self.sparsity else "dense"
        lie = {"unstructured": "", "block4": " in blocks of 4", "2:4": ", 2 of 4"}[self.pattern]
        width = ", MLP half as wide" if self.part == "half MLP" else ""
        return f"{self.precision} {zeros}{lie if self.sparsity else ''}{width}"

    def timed(self, blocks: tuple[int, ...], *, part: Part | None = None) -> Timed:
        """A piece of these blocks in this form."""
        zeros = (self.sparsity,) * len(LAYERS)
        return Timed(self.engine, Piece(blocks, part or self.part, self.file, zeros, self.pattern))

    @property
    def file(self) -> File:
        """How its files are written."""
        if self.precision == "fp32":
            return "fp32"
        return "deepsparse_int8" if Selection.parse(self.engine).engine == "deepsparse" else "onnxruntime_int8"

    @property
    def ends(self) -> Combination:
        """What stands before and after the blocks."""
        return {self.dense.timed(()): 1.0}

    def block(self, kind: int, *, part: Part | None = None) -> Combination:
        """One block among others."""
        return added((1 / COPIES, {self.timed((kind,) * COPIES, part=part): 1.0}), (-1 / COPIES, self.ends))

    def whole(self, kinds: Mapping[int, int]) -> Combination:
        """The model, from its kinds of blocks and their numbers."""
        return added((1, self.ends), *((count, self.block(kind)) for kind, count in kinds.items()))


def added(*parts: tuple[float, Combination]) -> Combination:
    """The sum of combinations, each times a factor."""
    total: dict[Timed, float] = {}
    for factor, part in parts:
        for timed, own in part.items():
            total[timed] = total.get(timed, 0.0) + factor * own
    return total


def values_ms(combination: Combination, rounds: Mapping[Timed, Rounds]) -> list[float]:
    """Its value in each round."""
    columns = [[factor * one for one in rounds[timed]] for timed, factor in combination.items() if factor]
    return [sum(column) for column in zip(*columns, strict=True)]


def value_ms(combination: Combination, rounds: Mapping[Timed, Rounds]) -> float:
    """The median of its values."""
    return median(values_ms(combination, rounds))


def compared(slow: Combination, fast: Combination, rounds: Mapping[Timed, Rounds], seed: int) -> SpeedUp:
    """How many times faster one is than the other, with its interval over rounds."""
    return speed_up(_units(values_ms(slow, rounds)), _units(values_ms(fast, rounds)), seed)


def _units(values: Sequence[float]) -> list[list[float]]:
    return [[value] for value in values]
