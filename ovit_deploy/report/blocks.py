"""What a page consists of, whatever it is written in."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """An SVG from ovit_deploy.drawing, which escapes all words; ``words`` stand for it where only words can."""

    svg: str
    words: str


Cell = str | Picture


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    words: str


@dataclass(frozen=True)
class Remark:
    """Something the reader may want to mend, and the command that does."""

    words: str
    command: str


@dataclass(frozen=True)
class Code:
    """Lines to be copied; with a title, folded away under it."""

    text: str
    title: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; a long one is folded away under its title."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    folded: bool = False


Block = Text | Remark | Code | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return self.title.lower().replace(" ", "-")
