"""Models of timm and `transformers`, built from a `ModelSpec`; weights from a safetensors file, the hub, or chance.

`choose` decides, without importing torch, which spec and file a command line means; `build` makes the network.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ovit_deploy import hf, hub
from ovit_deploy.catalog import PACKAGE
from ovit_deploy.checkpoint import Header, ModelSpec, load_tensors, read_header
from ovit_deploy.errors import ModelError
from ovit_deploy.recipe.quantization import Quantization
from ovit_deploy.recipe.schema import ModelSection

if TYPE_CHECKING:
    from torch import nn

EMBEDDED = PACKAGE / "assets" / "vit_fashion_mnist.safetensors"


@dataclass(frozen=True)
class Choice:
    """What a command line means: a model, and where its weights come from (a file, the hub, or chance)."""

    spec: ModelSpec
    weights: Path | None = None
    pretrained: bool = False


def choose(
    name: str | None,
    *,
    checkpoint: Path | None,
    pretrained: bool,
    section: ModelSection | None = None,
    arguments: Mapping[str, Any] = MappingProxyType({}),
) -> Choice:
    """The model of a command line: ``--model``, ``--checkpoint``, ``--pretrained``, the recipe's, else the embedded.

    A checkpoint that we wrote says itself which model it holds; any other needs ``--model``. ``arguments`` are what
    timm is told besides, of a model that starts from chance.

    Raises:
        ModelError: the three do not go together, or the checkpoint cannot be read.
    """
    if arguments and (name is None or hf.is_named(name) or checkpoint is not None or pretrained):
        raise ModelError("--model-arg is for a timm model that starts from chance", "give --model, and no weights")
    if checkpoint is not None:
        if pretrained:
            raise ModelError("--checkpoint and --pretrained: two sources of weights", "give one of them")
        return _from_checkpoint(checkpoint.expanduser(), name, section)
    if name is not None and hf.is_named(name):
        if pretrained:
            raise ModelError("--pretrained: a folder of transformers brings its weights", "leave it out")
        return Choice(hf.spec_of(name), weights=hf.weights_of(name))
    if name is not None:
        return Choice(ModelSpec(name, dict(arguments)), pretrained=pretrained)
    if pretrained:
        raise ModelError("--pretrained needs a model", "add --model, a timm name such as deit_tiny_patch16_224")
    if section is not None:
        return Choice(_section_spec(section))
    return _from_checkpoint(EMBEDDED, None, None)


def _from_checkpoint(path: Path, name: str | None, section: ModelSection | None) -> Choice:
    spec = read_header(path).spec
    named = (
        hf.spec_of(name) if name is not None and hf.is_named(name) else ModelSpec(name) if name is not None else None
    )
    if named is not None and (spec is None or spec.name != named.name):
        spec = named
    elif spec is None and section is not None:
        spec = _section_spec(section)
    if spec is None:
        raise ModelError(f"{path}: does not say which model it holds", "add --model, a timm name")
    return Choice(spec, weights=path)


def _section_spec(section: ModelSection) -> ModelSpec:
    return ModelSpec(section.name, dict(section.kwargs), section.mean, section.std)


def shapes(choice: Choice) -> dict[str, tuple[int, ...]]:
    """Parameter shapes by name; from the weights' file where there is one, else from timm on the meta device."""
    if choice.weights is not None:
        header: Header = read_header(choice.weights)
        if header.spec is not None:
            return {name: shape for name, shape in header.shapes.items() if "_quantizer." not in name}
    return {name: tuple(parameter.shape) for name, parameter in outline(choice.spec).named_parameters()}


def outline(spec: ModelSpec) -> "nn.Module":
    """The model on torch's meta device: names and shapes, no numbers.

    Raises:
        ModelError: unknown name, or keyword arguments that it does not take.
    """
    import torch

    with torch.device("meta"):
        return _create(spec, pretrained=False)


def completed(choice: Choice, *, classes: tuple[str, ...], channels: int) -> Choice:
    """``choice`` with what only the data know: class names and, for a model that starts from chance, its ends."""
    kwargs = choice.spec.kwargs
    if choice.weights is None and not choice.pretrained:
        kwargs = {"num_classes": len(classes), "in_chans": channels} | kwargs
    return replace(choice, spec=replace(choice.spec, kwargs=kwargs, classes=classes))


def build(choice: Choice) -> "nn.Module":
    """The model, on the CPU, in eval mode.

    Raises:
        ModelError: unknown name, unreachable hub, or weights of another model or class count.
    """
    spec = choice.spec
    model = _create(spec, pretrained=choice.pretrained)
    if spec.quantization is not None:
        _quantize(model, spec.quantization)
    if choice.weights is not None:
        _load(model, choice.weights, spec)
    if spec.classes and model.num_classes != len(spec.classes):
        raise ModelError(
            f"{spec.name} tells {model.num_classes} classes apart, the data have {len(spec.classes)}",
            "give --data with the model's classes, or a checkpoint trained on these data",
        )
    return model.eval()


def _create(spec: ModelSpec, *, pretrained: bool) -> "nn.Module":
    if hf.is_named(spec.name):
        return hf.create(spec)
    import timm

    _check_name(spec.name)
    overlay, folder = _preprocessing(spec), None
    if pretrained:
        source = hub.source_of(spec.name)
        overlay, folder = overlay | source.overlay, source.folder
    try:
        model = timm.create_model(
            spec.name, pretrained=pretrained, pretrained_cfg_overlay=overlay, cache_dir=folder, **_arguments(spec)
        )
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        if pretrained:
            raise _unreachable(spec, error) from error
        raise ModelError(f"{spec.name}: cannot be built: {_line(error)}", "check model.kwargs in the recipe") from error
    except Exception as error:  # the hub's client raises its own and its transport's errors
        raise _unreachable(spec, error) from error
    if spec.structure is not None:
        _thin(model, spec.structure)
    if spec.token_merging is not None:
        _merge(model, spec.token_merging)
    return _with_layers_called(model)


def _thin(model: "nn.Module", structure: dict[str, Any]) -> None:
    """Without the parts that the checkpoint has no more."""
    from ovit_deploy.structure import read_structure, rebuild

    rebuild(model, read_structure(structure))


def _merge(model: "nn.Module", per_block: dict[str, int]) -> None:
    """With tokens merged as the checkpoint says."""
    from ovit_deploy.structure import merge_tokens

    merge_tokens(model, {int(number): count for number, count in per_block.items()})


def _with_layers_called(model: "nn.Module") -> "nn.Module":
    """BEiT and EVA add the bias after the product, so that they call their layer and hooks and quantizers see it."""
    for module in model.modules():
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = True  # pyrefly: ignore[bad-argument-type]
    return model


def module_of(name: str) -> str:
    """The module of timm.models that defines a model, with or without tag: ``regnet`` of regnety_002."""
    import timm

    return timm.model_entrypoint(name).__module__.rpartition(".")[2]


def _check_name(name: str) -> None:
    """Refuse a name, or a tag after its dot, that timm does not know."""
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3) or ["deit_tiny_patch16_224"]
        raise ModelError(f"{name}: timm knows no such model", f"did you mean {', '.join(near)}?")
    bare, dot, tag = name.partition(".")
    if dot and name not in (tagged := timm.list_pretrained(f"{bare}.*")):
        raise ModelError(f"{name}: timm has no weights tagged {tag}", f"there are {', '.join(tagged) or 'none'}")


def _arguments(spec: ModelSpec) -> dict[str, Any]:
    """timm's keyword arguments. ``img_size`` is none of them where the network takes images of any size."""
    import timm

    config = timm.get_pretrained_cfg(spec.name)
    any_size = config is not None and not config.fixed_input_size
    return {key: value for key, value in spec.kwargs.items() if not (key == "img_size" and any_size)}


def _quantize(model: "nn.Module", quantization: dict[str, Any]) -> None:
    """Quantizers with the ranges that the checkpoint brings."""
    from ovit_deploy.quantization import freeze_observers, insert

    insert(model, Quantization.model_validate(quantization))
    freeze_observers(model)


def _unreachable(spec: ModelSpec, error: Exception) -> ModelError:
    return ModelError(
        f"{spec.name}: pretrained weights cannot be fetched: {_line(error)}",
        "check the network, or give the weights with --checkpoint file.safetensors",
    )


def _preprocessing(spec: ModelSpec) -> dict[str, object]:
    """What differs from timm's preprocessing for that name: size, channels, mean and std."""
    import timm

    config = timm.get_pretrained_cfg(spec.name) or timm.models.PretrainedCfg()
    channels, *pixels = config.input_size
    channels, size = spec.kwargs.get("in_chans", channels), spec.kwargs.get("img_size", tuple(pixels))
    size = (size, size) if isinstance(size, int) else tuple(size)
    mean, std = (spec.mean, spec.std) if spec.mean and spec.std else (config.mean, config.std)
    if len(mean) != channels:
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    overlay: dict[str, object] = {"input_size": (channels, *size), "mean": tuple(mean), "std": tuple(std)}
    return overlay if size == tuple(pixels) else overlay | {"crop_pct": 1.0}


def _load(model: "nn.Module", path: Path, spec: ModelSpec) -> None:
    foreign = hf.is_named(spec.name) and read_header(path).spec is None
    try:
        model.load_state_dict(hf.state_of(path) if foreign else load_tensors(path))
    except RuntimeError as error:
        raise ModelError(
            f"{path}: not the weights of {spec.name}: {_line(error, 1)}", "check --model and --checkpoint"
        ) from error


def _line(error: BaseException, number: int = 0) -> str:
    lines = [text.strip() for text in str(error).splitlines() if text.strip()] or [type(error).__name__]
    return lines[min(number, len(lines) - 1)]
