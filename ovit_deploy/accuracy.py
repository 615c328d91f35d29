"""Top-1 accuracy with its 95 % interval."""

import math
from dataclasses import dataclass
from typing import Any

_Z95 = 1.959964


@dataclass(frozen=True)
class Accuracy:
    """How many of ``total`` images were told right."""

    correct: int
    total: int

    @property
    def top1(self) -> float:
        """The fraction that is right."""
        return self.correct / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `top1` (Wilson, 1927)."""
        n, p = self.total, self.top1
        centre = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
        half = _Z95 / (1 + _Z95**2 / n) * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
        return centre - half, centre + half

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"top1": self.top1, "interval95": self.interval, "correct": self.correct, "images": self.total}
