"""``eval(...)`` in recipes: arithmetic over the recipe's variables, by a walk over Python's syntax tree.

Numbers, names, ``+ - * / // ** %``, unary minus, and calls of abs, float, int, max, min and round. Python's own
``eval`` is never called; the size and depth of an expression and the size of its numbers are limited.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_CALLS: dict[str, Callable[..., Any]] = {f.__name__: f for f in (abs, float, int, max, min, round)}
_MAX_LENGTH = 500
_MAX_DEPTH = 30
_MAX_MAGNITUDE = 1e12


class ExpressionError(ValueError):
    """An expression that cannot be computed; the message says why."""


def is_expression(value: object) -> bool:
    """Whether a recipe value is an expression: a string ``eval(...)``."""
    return isinstance(value, str) and value.strip().startswith("eval(") and value.strip().endswith(")")


def evaluate(text: str, variables: Mapping[str, Any]) -> Any:
    """The value of ``eval(...)``: a number, or whatever a bare variable name stands for.

    Raises:
        ExpressionError: not arithmetic, an unknown name, a cycle of variables, or a number out of bounds.
    """
    return _evaluate(text, variables, frozenset())


def _evaluate(text: str, variables: Mapping[str, Any], open_names: frozenset[str]) -> Any:
    source = text.strip()[len("eval(") : -1].strip()
    if len(source) > _MAX_LENGTH:
        raise ExpressionError(f"longer than {_MAX_LENGTH} characters")
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"{source!r} is not arithmetic") from error
    if isinstance(tree, ast.Name):
        return _lookup(tree.id, variables, open_names)
    try:
        return _walk(tree, variables, open_names, 0)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise error if isinstance(error, ExpressionError) else ExpressionError(f"{source!r}: {error}") from error


def _lookup(name: str, variables: Mapping[str, Any], open_names: frozenset[str]) -> Any:
    if len(open_names) > _MAX_DEPTH:
        raise ExpressionError(f"variable {name!r} is one of more than {_MAX_DEPTH} that refer to each other")
    if name in open_names:
        raise ExpressionError(f"variable {name!r} refers to itself")
    if name not in variables:
        raise ExpressionError(f"unknown variable {name!r}")
    value = variables[name]
    return _evaluate(value, variables, open_names | {name}) if is_expression(value) else value


def _walk(node: ast.expr, variables: Mapping[str, Any], open_names: frozenset[str], depth: int) -> float:
    if depth > _MAX_DEPTH:
        raise ExpressionError("nested too deeply")

    def walk(child: ast.expr) -> float:
        return _walk(child, variables, open_names, depth + 1)

    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.Name(id=name):
            return _bounded(float(value) if isinstance(value := _lookup(name, variables, open_names), str) else value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](walk(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](*_operands(op, walk(left), walk(right))))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=named) if name in _CALLS:
            keywords = {str(keyword.arg): walk(keyword.value) for keyword in named}
            return _bounded(_CALLS[name](*map(walk, args), **keywords))
    raise ExpressionError(f"{ast.unparse(node)!r} is not arithmetic over numbers and variables")


def _operands(op: ast.operator, left: float, right: float) -> tuple[float, float]:
    if isinstance(op, ast.Pow) and abs(right) > 64:
        raise ExpressionError("an exponent above 64")
    return left, right


def _bounded(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= _MAX_MAGNITUDE:
        raise ExpressionError(f"{value!r} is not a number up to {_MAX_MAGNITUDE:g}")
    return value
