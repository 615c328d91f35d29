"""Whether an engine computes the model: its logits against those of ONNX Runtime on the same file and images."""

from dataclasses import dataclass

import numpy as np

MAX_DIFFERENCE = 1e-2
MAX_ROUNDING = 0.1


@dataclass(frozen=True)
class Agreement:
    """Logits against those of ONNX Runtime on the same file and the same images."""

    max_abs_difference: float
    top1: float
    num_images: int


def compare(logits: np.ndarray, expected: np.ndarray) -> Agreement:
    """How far two arrays of logits [images, classes] are apart; a NaN counts as an infinite difference."""
    difference = float(np.nan_to_num(np.abs(logits - expected).max(), nan=np.inf))
    top1 = float((logits.argmax(axis=-1) == expected.argmax(axis=-1)).mean())
    return Agreement(difference, top1, len(logits))


def allowed(expected: np.ndarray, *, rounds: bool) -> float:
    """The largest difference that still counts as the same model.

    Args:
        expected: ONNX Runtime's logits.
        rounds: whether the engine was told to compute in less than float32, or the model has integers; then a tenth of
            the largest logit is allowed, which bfloat16 (8 bits of mantissa) in a deep network stays below and a wrong
            graph does not.
    """
    return max(MAX_DIFFERENCE, MAX_ROUNDING * float(np.abs(expected).max())) if rounds else MAX_DIFFERENCE
