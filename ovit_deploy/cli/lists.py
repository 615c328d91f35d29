"""Values with commas between them, as ``--sparsities 0.5,0.75`` takes them."""

from ovit_deploy.errors import OvitError


def words(text: str, option: str) -> tuple[str, ...]:
    """The words of a list, each once.

    Raises:
        OvitError: There are none.
    """
    found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found:
        raise OvitError(f"{option} {text!r}: nothing in it", "give values with commas between them")
    return found


def sparsities(text: str, option: str) -> tuple[float, ...]:
    """Sparsities in growing order, each once.

    Raises:
        OvitError: One of them is no fraction above 0 and below 1.
    """
    found = set()
    for word in words(text, option):
        try:
            value = float(word)
        except ValueError:
            value = -1.0
        if not 0 < value < 1:
            raise OvitError(f"{option} {text}: {word} is no sparsity", "give fractions of zeros, such as 0.5,0.75,0.9")
        found.add(value)
    return tuple(sorted(found))
