"""What is asked of a model, and the row that answers."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

Precision = Literal["fp32", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
ENGINES = ("onnxruntime", "openvino", "deepsparse")


@dataclass(frozen=True)
class Settings:
    """The same for all models of a qualification.

    Args:
        engines: That the exports run on.
        img_size: Pixels, in models that take images of that size; None, and in all others, for timm's own.
        sparsity: Of the weights that the model's family prunes.
        num_grads: Images whose gradients make the Fisher matrices.
        num_steps: Of finetuning.
        num_images: Test images, which the exports are compared on.
        seed: Of weights and images.
        timing: Measure the speed-up over the dense twin, too.
    """

    engines: tuple[str, ...] = ENGINES
    img_size: int | None = None
    sparsity: float = 0.75
    num_grads: int = 32
    num_steps: int = 8
    num_images: int = 16
    seed: int = 0
    timing: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"engines": list(self.engines)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Settings":
        """The settings that `as_dict` told of."""
        return cls(**values | {"engines": tuple(values["engines"])})


@dataclass
class Row:
    """What became of one model. What was not reached is None or missing.

    Args:
        model: timm's name.
        family: Its family, if it is of one that `families` knows.
        module: The module of timm.models that defines it.
        weights: ``chance``, or ``timm`` where pretrained ones were at hand.
        input_size: Channels, height, width.
        parameters: Numbers in it.
        prunable: Those that its family prunes.
        sparsity: Fraction of zeros in those.
        weight_bits: Of weights in INT8.
        parity: By ``engine precision``: how near its logits are to PyTorch's.
        refused: By ``engine precision``: what the engine is known not to run, see limits.py.
        slow: By ``engine precision``: fraction of the operators that the engine runs outside of its fast runtime.
        speed_up: By engine: the factor over the dense twin, where it was asked.
        seconds: Of everything.
        peak_bytes: Most resident memory of the process.
        failures: What went wrong, by stage.
    """

    model: str
    family: str | None = None
    module: str | None = None
    weights: str | None = None
    input_size: tuple[int, ...] | None = None
    parameters: int | None = None
    prunable: int | None = None
    sparsity: float | None = None
    weight_bits: int | None = None
    parity: dict[str, dict[str, float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    speed_up: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float | None = None
    peak_bytes: int | None = None
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def qualifies(self) -> bool:
        """Whether all engines gave PyTorch's logits, but for refusals that are known; those are of DeepSparse only."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Row":
        """The row that `as_dict` told of."""
        row = cls(**{one.name: values[one.name] for one in fields(cls)})
        row.input_size = tuple(row.input_size) if row.input_size else None
        return row
