"""Facts of any shape, as rows of a table: what engines and machines tell of themselves has no fixed keys."""

from collections.abc import Iterator, Mapping
from typing import Any


def pairs(facts: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names and values; a name within a name follows a dot. Lists of records are left out: see `records`."""
    if isinstance(facts, Mapping):
        for key, value in facts.items():
            yield from pairs(value, f"{name}.{key}" if name else str(key))
    elif isinstance(facts, list | tuple):
        if not _is_records(facts):
            yield name, ", ".join(map(tell, facts)) or "-"
    else:
        yield name, tell(facts)


def records(facts: Any, name: str = "") -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """The lists of records in ``facts``, such as layers, by their names."""
    if isinstance(facts, Mapping):
        for key, value in facts.items():
            yield from records(value, f"{name}.{key}" if name else str(key))
    elif isinstance(facts, list) and _is_records(facts):
        yield name, facts


def table(rows: list[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of records; a key that a record lacks is a dash."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return columns, [[tell(row[name]) if name in row else "-" for name in columns] for row in rows]


def tell(value: Any) -> str:
    """A value in words: numbers with six digits, what is not there as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _is_records(values: Any) -> bool:
    return bool(values) and all(isinstance(value, Mapping) for value in values)
