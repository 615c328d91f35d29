"""What an engine is known not to run, by its own words: a fact of the engine, and no failure of the model.

Only DeepSparse has such limits here: there will be no release after 1.8. ONNX Runtime and OpenVINO have none: a model
qualifies where both give PyTorch's logits in FP32 and in INT8, and DeepSparse gives them or refuses with one of these.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A refusal that is known.

    Args:
        engine: That refuses.
        words: What its message says, a regular expression.
        short: For the table; ``{}`` are the groups of ``words``.
    """

    engine: str
    words: str
    short: str


LIMITS = (
    Limit("deepsparse", r"Could not find an implementation for (\w+)\(", "no {}"),
    Limit("deepsparse", r"computes (\d+x\d+ depthwise convolutions of \d+x\d+ pixels) wrong", "{} wrong"),
)

_ASSERTION = re.compile(r"(\w+) died \([^)]*\) loading \S+: Assertion at (?:\S*/)?([^/\s]+:\d+)")


def known(engine: str, message: str) -> str | None:
    """The limit that an engine's message tells of, in short; None for anything else."""
    for limit in LIMITS:
        if limit.engine == engine and (found := re.search(limit.words, message)):
            return limit.short.format(*found.groups())
    return None


def plainly(message: str) -> str:
    """A failure in a user's words: an engine that dies in its own compiler is at fault itself, as every file that it
    is given ran in ONNX Runtime before.
    """
    return _ASSERTION.sub(
        r"a fault of \1: its compiler fails its own assertion (\2); ONNX Runtime runs the file", message
    )
