"""What the pictures share: an SVG file of its own, readable on light and on dark ground."""

from collections.abc import Iterable
from html import escape

# Follows the reader's colour scheme; a picture in a page that ignores it has the light one.
_STYLE = (
    "svg{background:#fff}text{font:12px sans-serif;fill:#24292f}.faint{fill:#57606a}.right{text-anchor:end}"
    ".middle{text-anchor:middle}.title{font-size:14px;font-weight:bold}.axis{stroke:#8c959f;fill:none}"
    ".grid{stroke:#d8dee4;fill:none}.halo{stroke:#fff}.ground{fill:#fff}"
    "@media (prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6edf3}.faint{fill:#8b949e}"
    ".axis{stroke:#6e7681}.grid{stroke:#30363d}.halo{stroke:#0d1117}.ground{fill:#0d1117}}"
)


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """The text of an SVG file."""
    size = f'width="{width:g}" height="{height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:g} {height:g}" role="img">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style>",
            *parts,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, kind: str = "", **attributes: str) -> str:
    """Words at a place; ``kind`` names classes of the style."""
    more = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<path class="{kind}" d="M{x1:.1f},{y1:.1f} L{x2:.1f},{y2:.1f}"/>'
