"""Vision transformers of Hugging Face's `transformers`, from a local folder: ``--model hf:/path``.

The folder is what ``save_pretrained`` writes: config.json, preprocessor_config.json and model.safetensors; without the
last, weights are random. A checkpoint of ours carries the first two in its metadata and needs the folder no more; its
weights have the names that `transformers` gives them.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

PREFIX = "hf:"
KINDS = ("vit", "deit", "vit_msn", "dinov2", "dinov2_with_registers", "ijepa")
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
IMAGE_NET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def is_named(name: str) -> bool:
    """Whether a model's name means one of these."""
    return name.startswith(PREFIX)


def spec_of(name: str) -> ModelSpec:
    """The spec of the model in a folder, ``hf:/path``.

    Raises:
        ModelError: the folder has no such files, or its model is of another kind.
    """
    folder = folder_of(name)
    config, wanted = _read(folder / "config.json"), _read(folder / "preprocessor_config.json")
    kind = config.get("model_type")
    if kind not in KINDS:
        raise ModelError(f"{folder}: a model of kind {kind}", f"these are pruned: {', '.join(KINDS)}")
    config["num_labels"] = len(config.pop("id2label", ())) or config.get("num_labels", 2)  # what transformers takes
    for key in ("label2id", "dtype"):
        config.pop(key, None)
    seen = _preprocessing(folder, config, wanted)
    return ModelSpec(f"{PREFIX}{kind}", {"config": config, "preprocessing": seen})


def folder_of(name: str) -> Path:
    """The folder that a name means."""
    return Path(name.removeprefix(PREFIX)).expanduser()


def weights_of(name: str) -> Path | None:
    """The file of the weights in the folder; None where it has a configuration only.

    Raises:
        ModelError: the weights are in several files, or pickled.
    """
    folder = folder_of(name)
    if (folder / "model.safetensors").is_file():
        return folder / "model.safetensors"
    for other in ("model.safetensors.index.json", "pytorch_model.bin"):
        if (folder / other).exists():
            raise ModelError(
                f"{folder}: its weights are not in one safetensors file",
                "load and save it with transformers: save_pretrained(folder, max_shard_size='100GB')",
            )
    return None


def create(spec: ModelSpec) -> "nn.Module":
    """The network with random weights, from images [N, C, H, W] to logits [N, classes].

    Raises:
        ModelError: `transformers` is not here, or it does not take the configuration.
    """
    transformers = _transformers()
    kwargs, settings, seen = spec.kwargs, dict(spec.kwargs["config"]), spec.kwargs["preprocessing"]
    channels, size, _ = seen["input_size"]
    channels, size = kwargs.get("in_chans", channels), kwargs.get("img_size", size)
    classes = kwargs.get("num_classes", settings["num_labels"])
    settings |= {"num_channels": channels, "image_size": size, "num_labels": classes}
    try:
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        network = transformers.AutoModelForImageClassification.from_config(config)
    except (TypeError, ValueError, ImportError) as error:
        raise ModelError(f"{spec.name}: cannot be built: {error}", "check config.json") from error
    network.__class__ = _giving_logits(type(network))
    network.num_classes, network.in_chans = config.num_labels, channels
    wanted = {"input_size": (channels, size, size), "mean": tuple(seen["mean"]), "std": tuple(seen["std"])}
    network.pretrained_cfg = seen | wanted | {"architecture": spec.name}
    return network


def state_of(weights: Path) -> "dict[str, Tensor]":
    """The weights of a folder under the names of this release of `transformers`, which reads those of earlier ones.

    Raises:
        ModelError: they are not of the model that config.json tells of.
    """
    try:
        network, told = _transformers().AutoModelForImageClassification.from_pretrained(
            weights.parent, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{weights}: cannot be loaded: {error}", "save it again with save_pretrained") from error
    if told["missing_keys"]:
        raise ModelError(
            f"{weights}: has no {', '.join(sorted(told['missing_keys'])[:3])}",
            "train its classifier with transformers first; an encoder alone has none",
        )
    return network.state_dict()


def _giving_logits(kind: type) -> type:
    """The same class, called with images and answering with logits, as timm's networks are."""

    def forward(self: Any, images: "Tensor") -> "Tensor":
        return kind.forward(self, pixel_values=images).logits

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ModelError(
            "hf: models need Hugging Face's transformers", "pip install 'ovit-deploy[transformers]'"
        ) from error
    return transformers


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: {getattr(error, 'strerror', None) or 'not JSON'}",
            "hf: wants a folder that save_pretrained wrote, of the model and of its image processor",
        ) from error


def _preprocessing(folder: Path, config: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json in the words of our `Preprocessing`."""
    factor = wanted.get("rescale_factor", 1 / 255)
    if not wanted.get("do_rescale", True) or abs(255 * factor - 1) > 1e-3:
        raise ModelError(f"{folder}: wants pixels times {factor:g}, not from 0 to 1", "only 1 / 255 is known here")
    resized, cropped = _side(wanted.get("size")), _side(wanted.get("crop_size"))
    crops = bool(cropped and wanted.get("do_center_crop"))
    size = cropped if crops else resized
    if size is None:
        raise ModelError(f"{folder}/preprocessor_config.json: no square size of images", "give it one")
    channels = config.get("num_channels", 3)
    mean, std = wanted.get("image_mean", IMAGE_NET[0]), wanted.get("image_std", IMAGE_NET[1])
    if not wanted.get("do_normalize", True):
        mean, std = [0.0] * channels, [1.0] * channels
    return {
        "input_size": [channels, size, size],
        "mean": list(mean),
        "std": list(std),
        "interpolation": RESAMPLING.get(wanted.get("resample", 2), "bilinear"),
        "crop_pct": size / resized if crops and resized else 1.0,
        "crop_mode": "center" if crops else "squash",
    }


def _side(size: Any) -> int | None:
    """Pixels of a side: of a number, {height, width} or {shortest_edge}; None for what is not square."""
    if isinstance(size, int) or size is None:
        return size
    values = set(size.values())
    return values.pop() if len(values) == 1 else None
