"""What happens to training images: fields, and presets under the names that CAP's and AugReg's settings have.

The presets are the files ``research/configs/<name>.yaml`` of CAP's code (github.com/IST-DASLab/CAP at faf298b), which
the paper (arXiv 2210.09223, appendix) trains with. `SOURCES` tells whose settings they were before.

Weight decay, clipping and label smoothing belong to ``training``; recipes/README.md tells what CAP has there.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from ovit_deploy.recipe.declaration import Declaration, Rate

Preset = Literal["light1", "light2", "medium1", "medium2", "deit", "deit_light"]
_RAND_AUGMENT = r"^rand(-(m\d+|n\d+|p[\d.]+|mstd[\d.]+|mmax\d+|inc[01]|t\w+))*$"

_DEIT: dict[str, Any] = {
    "crop_ratio": (0.67, 1.5),
    "interpolation": "random",
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "erasing": 0.25,
    "erasing_mode": "pixel",
    "mixup": 0.8,
    "cutmix": 1.0,
    "drop_path": 0.1,
}


def _augreg(magnitude: int, mixed: float) -> dict[str, Any]:
    policy = {"interpolation": "random", "rand_augment": f"rand-m{magnitude}-n2-inc1"}
    return policy | ({"mixup": mixed, "cutmix": mixed} if mixed else {})


PRESETS: dict[Preset, dict[str, Any]] = {
    "light1": _augreg(0, 0.0),
    "light2": _augreg(10, 0.2),
    "medium1": _augreg(15, 0.2),
    "medium2": _augreg(15, 0.5),
    "deit": _DEIT | {"repeats": 3},
    "deit_light": _DEIT | {"rand_augment": "rand-m6-mstd0.5-inc1", "mix_probability": 0.2},
}


SOURCES: dict[Preset, str] = {
    "light1": "AugReg (arXiv 2106.10270)",
    "light2": "AugReg; CAP adds cutmix",
    "medium1": "AugReg; CAP adds cutmix",
    "medium2": "AugReg; CAP adds cutmix",
    "deit": "DeiT (arXiv 2012.12877)",
    "deit_light": "CAP",
}


class Augmentation(Declaration):
    """What happens to training images, and drop path, which goes with it; torchvision and timm do it."""

    preset: Preset | None = Field(None, description="what the other fields are, where they do not say otherwise")
    crop_padding: int | None = Field(None, ge=0, description="random crop after padding by so many pixels")
    crop_scale: tuple[float, float] = Field((0.08, 1.0), description="share of the area, without crop_padding")
    crop_ratio: tuple[float, float] = Field((0.75, 4 / 3), description="width by height, without crop_padding")
    interpolation: Literal["bilinear", "bicubic", "random"] | None = Field(None, description="by default the model's")
    horizontal_flip: Rate = 0.5
    rand_augment: str | None = Field(
        None, pattern=_RAND_AUGMENT, description="timm's notation, such as rand-m9-mstd0.5-inc1"
    )
    erasing: Rate = 0.0
    erasing_mode: Literal["const", "pixel"] = "const"
    mixup: float = Field(0.0, ge=0, description="alpha of mixup (arXiv 1710.09412); 0 is none")
    cutmix: float = Field(0.0, ge=0, description="alpha of cutmix (arXiv 1905.04899); 0 is none")
    mix_probability: Rate = Field(1.0, description="of a batch to be mixed")
    cutmix_share: Rate = Field(0.5, description="of mixed batches, where both are on")
    repeats: int = Field(1, ge=1, description="how often an image is drawn in an epoch (arXiv 1901.09335)")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth (arXiv 1603.09382) of the last block")

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed, so that labels become distributions."""
        return self.mix_probability > 0 and (self.mixup > 0 or self.cutmix > 0)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            return PRESETS[values["preset"]] | values
        return values


def _of_name(value: Any) -> Any:
    return {"preset": value} if isinstance(value, str) else value


# In a recipe: ``augmentation: light1``, or ``augmentation: {preset: light1, mixup: 0.2}``, or fields alone.
NamedAugmentation = Annotated[
    Augmentation,
    BeforeValidator(_of_name),
    WithJsonSchema({"anyOf": [{"$ref": "#/$defs/Augmentation"}, {"enum": list(PRESETS)}]}),
]
