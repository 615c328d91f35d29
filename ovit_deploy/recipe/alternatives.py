"""Branches of a regular expression that match nothing: ``re:.*(attn.[qkv]|mlp.fc1).weight`` on a model without ``q``.

SparseML takes such a selector without a word, because the whole pattern does match something.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

# What a group may begin with; the branches of what looks ahead for something absent are not looked at.
_OPENING = re.compile(r"\?(?:P<\w+>|[aiLmsux-]*:|[=>]|<=)")
_SKIPPED = ("?!", "?<!", "?(", "?#")


@dataclass
class _Group:
    start: int
    bars: list[int] = field(default_factory=list)


def dead_alternatives(pattern: str, names: Iterable[str]) -> list[str]:
    """The branches of ``pattern`` with which alone it would match none of ``names``."""
    known = list(names)
    dead = []
    for start, end, branch in _branches(pattern):
        alone = re.compile(pattern[:start] + branch + pattern[end:])
        if not any(alone.match(name) for name in known):
            dead.append(branch)
    return dead


def _branches(pattern: str) -> Iterator[tuple[int, int, str]]:
    """Each branch of each alternation: where the alternation stands, and the branch."""
    for group, end in _groups(pattern):
        edges = [group.start - 1, *group.bars, end]
        for left, right in pairwise(edges):
            yield group.start, end, pattern[left + 1 : right]


def _groups(pattern: str) -> Iterator[tuple[_Group, int]]:
    """Groups with more than one branch, and where they end; the whole pattern is one, too."""
    stack = [_Group(0)]
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
        elif character == "[":
            position = _end_of_set(pattern, position)
        elif character == "(":
            opening = _OPENING.match(pattern, position + 1)
            stack.append(_Group(opening.end() if opening else position + 1))
        elif character == "|":
            stack[-1].bars.append(position)
        elif character == ")":
            group = stack.pop()
            if group.bars and not pattern.startswith(_SKIPPED, group.start):
                yield group, position
        position += 1
    if stack[0].bars:
        yield stack[0], len(pattern)


def _end_of_set(pattern: str, position: int) -> int:
    """Where the set ``[...]`` that begins at ``position`` ends; a ``]`` right at its start is one of its characters."""
    found = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]").match(pattern, position)
    return found.end() - 1 if found else len(pattern)
