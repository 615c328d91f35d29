"""What a model wants to see: size, crop and normalisation, as data; the transforms are timm's and torchvision's."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import timm.data
import torch
from PIL import Image
from timm.data.auto_augment import RandAugment, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import nn
from torchvision import transforms

from ovit_deploy.recipe.schema import Augmentation


@dataclass(frozen=True)
class Preprocessing:
    """Input shape [C, H, W] in pixels, and how an image becomes it."""

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    @classmethod
    def of(cls, model: nn.Module) -> "Preprocessing":
        """What the model's own ``pretrained_cfg`` says (DeiT: 224 pixels, bicubic, crop 0.9)."""
        config: dict[str, Any] = timm.data.resolve_model_data_config(model)
        return cls(**{name: config[name] for name in cls.__dataclass_fields__ if name in config})

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    def eval_transform(self) -> Callable[[Any], torch.Tensor]:
        """PIL image -> normalised float tensor [C, H, W], without chance."""
        return transforms.Compose([_mode(self.input_size[0]), timm.data.create_transform(**self._arguments())])

    def train_transform(self, augmentation: Augmentation) -> Callable[[Any], torch.Tensor]:
        """PIL image -> normalised float tensor [C, H, W], augmented."""
        if augmentation.crop_padding is not None:
            return self._padded_crop(augmentation)
        transform = timm.data.create_transform(
            **self._arguments() | {"interpolation": augmentation.interpolation or self.interpolation},
            is_training=True,
            scale=augmentation.crop_scale,
            ratio=augmentation.crop_ratio,
            hflip=augmentation.horizontal_flip,
            color_jitter=0.0,
            auto_augment=augmentation.rand_augment,
            re_prob=augmentation.erasing,
            re_mode=augmentation.erasing_mode,
        )
        assert isinstance(transform, transforms.Compose)
        for step in transform.transforms:
            if isinstance(step, RandAugment):
                _keep_a_bit(step)
        return transforms.Compose([_mode(self.input_size[0]), transform])

    def _arguments(self) -> dict[str, Any]:
        return self.as_dict()

    def _padded_crop(self, augmentation: Augmentation) -> Callable[[Any], torch.Tensor]:
        size = self.input_size[1:]
        colour = tuple(min(255, round(255 * mean)) for mean in self.mean)  # as timm fills what it shifts in
        policy = augmentation.rand_augment
        return transforms.Compose(
            [
                _mode(self.input_size[0]),
                transforms.Resize(size),
                transforms.RandomCrop(size, padding=augmentation.crop_padding),
                transforms.RandomHorizontalFlip(augmentation.horizontal_flip),
                *([_keep_a_bit(rand_augment_transform(policy, {"img_mean": colour}))] if policy else []),
                transforms.ToTensor(),
                transforms.Normalize(self.mean, self.std),
                RandomErasing(augmentation.erasing, mode=augmentation.erasing_mode, device="cpu"),
            ]
        )


def _keep_a_bit(policy: RandAugment) -> RandAugment:
    """Let ``policy`` posterize to one bit at least: timm asks for 0 at an end, which Pillow 13 refuses."""
    for op in policy.ops:
        if op.name.startswith("Posterize"):
            op.level_fn = partial(_at_least_one, op.level_fn)
    return policy


def _at_least_one(bits: Callable[..., tuple[int]], level: float, settings: dict[str, Any]) -> tuple[int]:
    return (max(1, *bits(level, settings)),)


def _mode(channels: int) -> Callable[[Image.Image], Image.Image]:
    return partial(_converted, mode="L" if channels == 1 else "RGB")


def _converted(image: Image.Image, *, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)
