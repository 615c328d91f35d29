"""A report as Markdown: the tables and commands; pictures are left to the HTML page, their numbers are in tables."""

import re
from collections.abc import Iterator
from html import escape

from ovit_deploy.report.blocks import Block, Cell, Code, Picture, Remark, Section, Table, Text


def markdown(title: str, created: str, sections: list[Section]) -> str:
    """The text of the file."""
    parts = [f"# {_inline(title)}", f"Made by `ovit-deploy report` at {created}."]
    for section in sections:
        parts += [f"## {_inline(section.title)}", *(part for block in section.blocks for part in _block(block))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Text(words):
            yield _inline(words)
        case Remark(words, command):
            yield f"- {_inline(words)}: {_code(command)}"
        case Code(text, title):
            if title:
                yield f"{_code(title)}:"
            fence = _fence(text)
            yield f"{fence}\n{text.rstrip()}\n{fence}"
        case Table():
            yield from _table(block)
        case Picture():
            return


def _table(table: Table) -> Iterator[str]:
    if table.title:
        yield f"**{_inline(table.title)}**"
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    yield "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    return _inline(cell.words if isinstance(cell, Picture) else cell)


def _inline(words: str) -> str:
    """Words that mean themselves: no HTML, no markup, no end of a table's cell."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", escape(" ".join(words.split()), quote=False))


def _code(words: str) -> str:
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    return f"{ticks}{words}{ticks}" if len(ticks) == 1 else f"{ticks} {words} {ticks}"


def _fence(text: str) -> str:
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
