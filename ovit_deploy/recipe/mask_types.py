"""The spellings of ``mask_type``, read into one: ``unstructured``, ``N:M`` (N of M are kept) or ``RxC`` (blocks).

SparseML's ``block4`` is ``1x4``, its ``tensorrt`` is ``2:4``. CAP, SparseGPT and llm-compressor count the zeros in
``N:M`` instead of what is kept; `of_zeros` turns theirs into ours.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

_NAMED = {"unstructured": "unstructured", "block4": "1x4", "tensorrt": "2:4"}
_OF = re.compile(r"(\d{1,4}):(\d{1,4})")
_BLOCK = re.compile(r"(-1|\d{1,4})x(-1|\d{1,4})")


MaskKind = Literal["unstructured", "N:M", "1xG", "RxC"]
KINDS: tuple[MaskKind, ...] = ("unstructured", "N:M", "1xG", "RxC")
OF_ONE_ROW: tuple[MaskKind, ...] = ("unstructured", "N:M", "1xG")


@dataclass(frozen=True)
class MaskType:
    """A pattern of zeros: ``kept`` of each ``group`` along the input, or blocks of ``rows`` x ``columns``."""

    kept: int | None = None
    group: int | None = None
    rows: int = 1
    columns: int = 1

    @property
    def kind(self) -> MaskKind:
        """The family that a pruner supports or not."""
        if self.kept is not None:
            return "N:M"
        return (
            "unstructured" if (self.rows, self.columns) == (1, 1) else "1xG" if self.rows == 1 < self.columns else "RxC"
        )

    @property
    def sparsity(self) -> float | None:
        """What N:M fixes the sparsity to; the others leave it open."""
        return None if self.kept is None or self.group is None else 1 - self.kept / self.group


def canonical(value: Any) -> str:
    """The one spelling of a ``mask_type``.

    Raises:
        ValueError: it is no mask type.
    """
    if isinstance(value, list | tuple) and len(value) == 2 and all(type(size) is int for size in value):
        value = f"{value[0]}x{value[1]}"
    text = _NAMED.get(value, value) if isinstance(value, str) else ""
    if text == "unstructured" or _valid(text):
        return text
    raise ValueError("must be unstructured, block4, tensorrt, 'N:M' such as '2:4', or [rows, columns]")


def _valid(text: str) -> bool:
    if found := _OF.fullmatch(text):
        return 0 < int(found[1]) < int(found[2])
    found = _BLOCK.fullmatch(text)
    return found is not None and "0" not in found.groups() and found.groups() != ("-1", "-1")


def of_zeros(value: Any) -> Any:
    """``N:M`` with N zeros as ours, with N kept; ``0:0`` is unstructured; anything else stays."""
    if value == "0:0":
        return "unstructured"
    found = _OF.fullmatch(value) if isinstance(value, str) else None
    return f"{int(found[2]) - int(found[1])}:{found[2]}" if found else value


def parse(spelling: str) -> MaskType:
    """The pattern that a canonical spelling stands for."""
    if found := _OF.fullmatch(spelling):
        return MaskType(kept=int(found[1]), group=int(found[2]))
    if found := _BLOCK.fullmatch(spelling):
        return MaskType(rows=int(found[1]), columns=int(found[2]))
    assert spelling == "unstructured", spelling
    return MaskType()
