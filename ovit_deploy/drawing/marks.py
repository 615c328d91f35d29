"""What a series looks like: a colour, the form of its marks, whiskers for intervals."""

from html import escape

from ovit_deploy.drawing import svg

# Middle tones, which stand out from white and from black (after Okabe & Ito, for colour-blind readers, extended).
COLOURS = (
    "#d62728",
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#7f7f7f",
    "#56b4e9",
    "#8c6d31",
    "#9467bd",
    "#bcbd22",
)
FORMS = ("circle", "square", "diamond", "triangle", "nabla", "cross")


def colour(number: int) -> str:
    """Of series ``number``, counted from 0; they come again when there are no more."""
    return COLOURS[number % len(COLOURS)]


def form(number: int) -> str:
    """Of series ``number``, counted from 0."""
    return FORMS[number % len(FORMS)]


def mark(x: float, y: float, form: str, colour: str, told: str, *, hollow: bool = False) -> str:
    """A mark; ``told`` shows where the pointer rests on it."""
    paths = {
        "circle": f"M{x - 4:.1f},{y:.1f} a4,4 0 1,0 8,0 a4,4 0 1,0 -8,0",
        "square": f"M{x - 3.5:.1f},{y - 3.5:.1f} h7 v7 h-7 z",
        "diamond": f"M{x:.1f},{y - 5:.1f} l5,5 l-5,5 l-5,-5 z",
        "triangle": f"M{x:.1f},{y - 4.5:.1f} l4.5,8 h-9 z",
        "nabla": f"M{x:.1f},{y + 4.5:.1f} l4.5,-8 h-9 z",
        "cross": f"M{x - 1.5:.1f},{y - 4.5:.1f} h3 v3 h3 v3 h-3 v3 h-3 v-3 h-3 v-3 h3 z",
    }
    look = f'class="ground" stroke="{colour}" stroke-width="2"' if hollow else f'class="halo" fill="{colour}"'
    return f'<path {look} d="{paths[form]}"><title>{escape(told)}</title></path>'


def whiskers(x: tuple[float, float], y: tuple[float, float], centre: tuple[float, float], colour: str) -> list[str]:
    """The intervals of a point, in pixels: one line across, one line down."""
    across = f"M{x[0]:.1f},{centre[1]:.1f} H{x[1]:.1f}"
    down = f"M{centre[0]:.1f},{y[0]:.1f} V{y[1]:.1f}"
    return [f'<path stroke="{colour}" fill="none" d="{across} {down}"/>']


def legend(form: str, colour: str, told: str, *, hollow: bool = False) -> str:
    """A mark by itself, for a line of text or the cell of a table."""
    drawn = mark(7, 7, form, colour, told, hollow=hollow)
    return f'<svg class="mark" width="14" height="14" viewBox="0 0 14 14" role="img">{drawn}</svg>'


def polyline(points: list[tuple[float, float]], colour: str, width: float = 1.5) -> str:
    """Points joined by lines."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline fill="none" stroke="{colour}" stroke-width="{width:g}" points="{joined}"/>'


def key(x: float, y: float, form: str, colour: str, words: str, *, hollow: bool = False) -> list[str]:
    """A mark and what it stands for, beside each other."""
    return [mark(x, y - 4, form, colour, words, hollow=hollow), svg.text(x + 12, y, words)]
