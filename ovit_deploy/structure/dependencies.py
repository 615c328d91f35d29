"""Which channels of a network go together: found by torch-pruning's dependency graph, then tried.

torch-pruning (Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv 2301.12900) follows the graph of autograd
from layer to layer. What it finds is taken where every layer on the way is one that keeps channels apart, and kept
whole where a LayerNorm, attention or a grouped convolution has part in it. Then each group is tried on a copy with
random weights: without half of its channels it has to answer as with zeros in their consumers. A group that does not
(weight standardisation, global response norms, layers that are used twice) is left whole, too.
"""

import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ovit_deploy.errors import ModelError
from ovit_deploy.structure.channels import Group, Slice, mask_channels, remove_channels

_KEEPS_APART = ("_ElementWiseOp", "_ReshapeOp", "_ConcatOp")
_TOLERANCE = 1e-9  # relative, in float64


def groups_of(model: nn.Module) -> tuple[Group, ...]:
    """The groups of channels that can be removed from a model of timm, in the order of their first layers.

    Raises:
        ModelError: there are none; or torch-pruning is not installed, or cannot follow the model; or it is quantized.
    """
    kind = type(model).__name__
    _refuse(model)
    trial = _scrambled(model)
    size = _input_size(model)
    image = torch.randn(2, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = [group for group in _traced(copy.deepcopy(trial).requires_grad_(), image[:1], kind) if group is not None]
    good = _tried(trial, found, image)
    if not good:
        raise ModelError(
            f"{kind}: no channels can be removed: a LayerNorm, attention or grouped convolution reads all of them",
            "prune it without structure, for example !OViTPruningModifier",
        )
    order = {name: number for number, (name, _) in enumerate(model.named_parameters())}
    named = {min(group.producers, key=order.__getitem__): group for group in good}
    return tuple(
        Group(name.removesuffix(".weight"), named[name].slices) for name in sorted(named, key=order.__getitem__)
    )


def _refuse(model: nn.Module) -> None:
    """Raise ModelError for models whose parts are removed otherwise, or no more."""
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(model, VisionTransformer):
        raise ModelError(
            "a VisionTransformer has heads and neurons instead of channels",
            "use !HeadWidthPruningModifier, !HeadPruningModifier or !WidthPruningModifier",
        )
    if any(hasattr(module, "weight_quantizer") for module in model.modules()):
        raise ModelError("the model is quantized: its parts cannot be removed", "remove parts first, then quantize")


def _input_size(model: nn.Module) -> tuple[int, ...]:
    from timm.data import resolve_model_data_config

    return tuple(resolve_model_data_config(model)["input_size"])


def _scrambled(model: nn.Module) -> Any:
    """A copy on the CPU in float64 with weights that make every part matter: trained ones may be all but zero."""
    generator = torch.Generator().manual_seed(0)
    trial = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    with torch.no_grad():
        for tensor in [*trial.parameters(), *(b for b in trial.buffers() if b.is_floating_point())]:
            drawn = torch.rand(tensor.shape, dtype=torch.float64, generator=generator)
            fan_in = math.prod(tensor.shape[1:])
            tensor.copy_((drawn - 0.5) * math.sqrt(12 / fan_in) if tensor.ndim > 1 else drawn + 0.5)
    return trial


def _traced(trial: Any, image: Tensor, kind: str) -> "Iterator[Group | None]":
    """What torch-pruning finds; None for a group that is kept whole."""
    try:
        import torch_pruning
    except ImportError as error:
        raise ModelError(
            "channels are found by torch-pruning, which is not installed", "pip install ovit-deploy[channels]"
        ) from error
    graph = torch_pruning.DependencyGraph()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells what it guesses; groups are tried below
        try:
            graph.build_dependency(trial, example_inputs=image)
            groups = list(graph.get_all_groups(root_module_types=[nn.Conv2d, nn.Linear]))
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError, IndexError) as error:
            raise ModelError(
                f"{kind}: torch-pruning cannot follow it: {error}",
                "prune it without structure, for example !OViTPruningModifier",
            ) from error
    paths = {id(module): path for path, module in trial.named_modules()}
    paths |= {id(parameter): name for name, parameter in trial.named_parameters()}
    for found in groups:
        yield _group(trial, graph, found, paths)


def _group(trial: Any, graph: Any, found: Any, paths: dict[int, str]) -> Group | None:
    slices: list[Slice] = []
    for item in found.items:
        target = item.dep.target.module
        if type(target).__name__ in _KEEPS_APART:
            continue
        path = paths.get(id(target))
        out = graph.is_out_channel_pruning_fn(item.dep.handler)
        where = None if path is None else _where(target, path, out=out)
        if where is None:
            return None
        index_CS = _by_channel(item.idxs, item.root_idxs)
        if index_CS is None:
            return None
        slices += [Slice(name, dim, index_CS, reads=reads) for name, dim, reads in where]
    group = Group(slices[0].tensor.rpartition(".")[0], tuple(slices)) if slices else None
    if group is None or not group.consumers or not group.producers or _inside_attention(trial, group):
        return None
    return group


def _where(target: Any, path: str, *, out: bool) -> list[tuple[str, int, bool]] | None:
    """Tensors and dimensions of a layer that has part in a group, and whether it reads the channels."""
    match target:
        case nn.Parameter():
            dims = [dim for dim, size in enumerate(target.shape) if size > 1]
            return [(path, dims[0], False)] if len(dims) == 1 else None
        case nn.Linear() | nn.Conv2d():
            groups = getattr(target, "groups", 1)
            if groups > 1 and not groups == target.in_channels == target.out_channels:
                return None
            if not out and groups == 1:
                return [(f"{path}.weight", 1, True)]
            return [(f"{path}.weight", 0, False)] + ([(f"{path}.bias", 0, False)] if target.bias is not None else [])
        case _BatchNorm():
            names = ["running_mean", "running_var"] if target.running_mean is not None else []
            names += ["weight", "bias"] if target.affine else []
            return [(f"{path}.{name}", 0, False) for name in names]
    return None


def _by_channel(indices: list[int], channels: list[int]) -> Tensor | None:
    """Indices along a dimension by the channel that they belong to [C, S]; None where channels have unlike parts."""
    order = torch.tensor(channels).argsort(stable=True)
    counts = torch.tensor(channels).unique(return_counts=True)[1]
    if len(counts) == 0 or bool((counts != counts[0]).any()):
        return None
    return torch.tensor(indices)[order].view(len(counts), -1)


def _inside_attention(trial: Any, group: Group) -> bool:
    """Whether the group makes queries, keys or values: those are in heads, which are no channels."""
    for name in group.producers:
        path = name.rpartition(".")[0]
        parents = [path.rsplit(".", 1 + level)[0] for level in range(path.count("."))]
        for parent in parents:
            owns = hasattr(trial.get_submodule(parent), "num_heads")
            if owns and all(slice_.tensor.startswith(f"{parent}.") for slice_ in group.slices):
                return True
    return False


def _tried(trial: Any, groups: list[Group], image: Tensor) -> list[Group]:
    """Those without half of whose channels the model answers as with zeros; all at once first, then one by one."""
    if groups and _answers(trial, groups, image):
        return groups
    return [group for group in groups if _answers(trial, [group], image)]


@torch.no_grad()
def _answers(trial: Any, groups: list[Group], image: Tensor) -> bool:
    gone = {group.name: range(1, group.count, 2) for group in groups if group.count > 1}
    masked, removed = copy.deepcopy(trial), copy.deepcopy(trial)
    mask_channels(masked, groups, gone)
    remove_channels(removed, groups, gone)
    try:
        answer = removed(image)
    except (RuntimeError, ValueError):  # a layer that knows its sizes from elsewhere
        return False
    expected = masked(image)
    return bool((answer - expected).abs().max() <= _TOLERANCE * expected.abs().max())
