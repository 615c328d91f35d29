"""An engine with values for its options, as a command line writes it: ``openvino:precision=bf16``."""

from __future__ import annotations

from dataclasses import dataclass

from ovit_deploy.engines import ENGINES
from ovit_deploy.engines.base import Option, Traits

Value = bool | float | str
_SWITCH = {"true": True, "false": False}


@dataclass(frozen=True)
class Selection:
    """An engine and the options that were given; ``str`` writes it as it is read.

    Args:
        engine: one of ``engines.ENGINES``.
        given: option and value, as text, in the order of the engine's traits.
    """

    engine: str
    given: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Selection:
        """The selection in ``NAME`` or ``NAME:OPTION=VALUE,...``.

        Raises:
            ValueError: no such engine, option or value; says which there are.
        """
        engine, colon, rest = text.partition(":")
        if engine not in ENGINES:
            raise ValueError(f"no engine {engine!r}, there are {', '.join(ENGINES)}")
        options, found = ENGINES[engine].options, {}
        for part in rest.split(",") if colon else ():
            name, _, value = part.partition("=")
            if name not in options:
                known = ", ".join(options) or "none"
                raise ValueError(f"{engine} has no option {name!r}, its options: {known}")
            found[name] = _value(name, value, options[name])
        return cls(engine, tuple((name, found[name]) for name in options if name in found))

    def __str__(self) -> str:
        given = ",".join(f"{name}={_text(value)}" for name, value in self.given)
        return f"{self.engine}:{given}" if given else self.engine

    @property
    def traits(self) -> Traits:
        """What is known of the engine."""
        return ENGINES[self.engine]

    @property
    def options(self) -> dict[str, Value]:
        """A value for every option: what was given, else the default."""
        return {name: option.default for name, option in self.traits.options.items()} | dict(self.given)

    @property
    def rounds(self) -> bool:
        """Whether it computes in less than float32."""
        return any(self.options[name] in option.rounding for name, option in self.traits.options.items())


def _value(name: str, text: str, option: Option) -> Value:
    if isinstance(option.default, bool):
        choices, value = tuple(_SWITCH), _SWITCH.get(text)
    elif isinstance(option.default, float):
        choices, value = ("a number from 0 to 1",), _fraction(text)
    else:
        choices, value = option.choices, text if text in option.choices else None
    if value is None:
        raise ValueError(f"{name} must be {' or '.join(choices)}, not {text!r}")
    return value


def _fraction(text: str) -> float | None:
    try:
        return value if 0 <= (value := float(text)) <= 1 else None
    except ValueError:
        return None


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else value
