"""The only module that prints: results to stdout, everything else to stderr."""

import json
import re
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

LONG_WORD = 24  # letters; longer ones, such as paths, may be broken
_FIGURE = re.compile(r"[-+]?\d\S*( (to|/) \S+)?$|-?$")
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def only_errors() -> None:
    """Leave the result to another process of the same run."""
    out.quiet = True


def line(text: str = "") -> None:
    """One line of the result."""
    out.print(escape(text))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table of the result: figures to the right, text to the left and wrapped where it must be, between words."""
    drawn = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        cells = [str(row[number]) for row in rows]
        figures = all(map(_FIGURE.match, cells))
        longest = max(map(len, " ".join((column, *cells)).split()), default=0)
        drawn.add_column(
            escape(column),
            justify="right" if figures else "left",
            no_wrap=figures or not number,
            min_width=min(longest, LONG_WORD),
        )
    for row in rows:
        drawn.add_row(*(escape(str(cell)) for cell in row))
    out.print(drawn)


def as_json(value: Any) -> None:
    """The result for machines."""
    if out.quiet:
        return
    out.print_json(json.dumps(value)) if out.is_terminal else print(json.dumps(value, indent=2), file=out.file)


def verbatim(text: str) -> None:
    """A result that is a file of its own, as it is."""
    print(text, end="", file=out.file)


def next_command(command: str) -> None:
    """What a user would type next."""
    out.print(f"next: [bold]{escape(command)}[/bold]")


def note(text: str) -> None:
    """Progress or a remark, on stderr."""
    err.print(escape(text))


def warning(text: str) -> None:
    """Something a user should act on, on stderr."""
    err.print(f"[yellow]warning:[/yellow] {escape(text)}")


def error(message: str, hint: str) -> None:
    """Why the command failed, and what to do."""
    err.print(f"[red]error:[/red] {escape(message)}")
    if hint:
        err.print(f"  hint: {escape(hint)}")


def progress() -> Progress:
    """A progress bar on stderr with elapsed and remaining time."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
