"""What carries a recipe: a YAML file, a JSON file, the front matter of a Markdown file, or a plain string.

Every carrier becomes YAML text in which each line and column is that of the file.
"""

import re
from pathlib import Path

from ovit_deploy.errors import RecipeError

ENDINGS = (".yaml", ".yml", ".json", ".md")
_FENCE = re.compile(r"^(---|\+\+\+)[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"\s*(<!--.*?-->\s*)*", re.DOTALL)


def read(path: Path) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: a kind of file that carries no recipe, or not text.
    """
    if path.suffix.lower() not in ENDINGS:
        raise RecipeError(f"{path}: not a recipe file", f"a recipe ends in {', '.join(ENDINGS)}, see recipes/")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text", "a recipe is a YAML file, see recipes/") from error


def yaml_of(text: str, source: str) -> str:
    """The YAML inside ``text``, whose kind the ending of ``source`` tells; no ending means a plain string.

    Raises:
        RecipeError: a Markdown file without front matter.
    """
    ending = Path(source).suffix.lower()
    if ending == ".json":
        return text.replace("\t", " ")
    if ending in (".yaml", ".yml"):
        return text
    inside = _front_matter(text)
    if inside is None and ending == ".md":
        raise RecipeError(f"{source}:1:1: no front matter", "put the recipe between two lines '---' at the top")
    return text if inside is None else inside


def _front_matter(text: str) -> str | None:
    """What stands between the first two fences, after as many empty lines as stand before it."""
    comment = _COMMENT.match(text)
    opening = _FENCE.match(text, comment.end() if comment else 0)
    closing = _FENCE.search(text, opening.end()) if opening else None
    if opening is None or closing is None:
        return None
    return "\n" * text.count("\n", 0, opening.end()) + text[opening.end() : closing.start()]
