"""SparseML's LayerThinningModifier: filters or channels of zeros removed from layers that share them.

What depends on what, the recipe says; the graph of the model says it, too, and where the two differ the recipe is
refused, since a layer that is left out would no longer fit. A filter of zeros may still give a constant, by its bias
or norm: that goes with it, as in SparseML, and batch norms take their statistics anew.
"""

from typing import TYPE_CHECKING, Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ovit_deploy.errors import PruningError
from ovit_deploy.finetune.thinning import apply, recalibrate_batch_norms
from ovit_deploy.pruning.structured import Removal
from ovit_deploy.recipe.filters import AXES, LayerThinningModifier
from ovit_deploy.structure import Kept, blocks_of, everything
from ovit_deploy.structure.channels import Group, Slice, plan_of
from ovit_deploy.structure.dependencies import groups_of

if TYPE_CHECKING:
    from ovit_deploy.finetune.actions import State


def thin_layers(modifier: LayerThinningModifier, state: "State", epoch: float) -> dict[str, Any]:
    """Remove what is zero; the line for the run's record.

    Raises:
        PruningError: a name is unknown, the map and the model differ, or a layer has nothing but zeros.
    """
    of_vit = isinstance(state.model, VisionTransformer)
    groups = _neurons(state.model) if of_vit else groups_of(state.model)
    axis = AXES.index(modifier.structure_type)
    gone = {}
    for sparse, dependent in modifier.groups:
        group = _group(groups, sparse, dependent, axis, state.model)
        gone[group.name] = _zeros(state.model, group, sparse, axis)
    kept = _kept(state.model, gone) if of_vit else plan_of(state.model, groups, gone)
    before = sum(parameter.numel() for parameter in state.model.parameters())
    apply(Removal(kept, {}), state)
    renewed = recalibrate_batch_norms(state)
    after, count = sum(parameter.numel() for parameter in state.model.parameters()), sum(map(len, gone.values()))
    state.report(f"epoch {epoch:g}: {count} {modifier.structure_type}s of zeros removed, {after / before:.2%} is left")
    assert state.structure is not None
    return {
        "event": "thin",
        "epoch": epoch,
        "method": modifier.short_name,
        "sparsity": 1 - after / before,
        "details": {"removed": {name: len(channels) for name, channels in gone.items()}}
        | {"structure": state.structure.as_dict()}
        | renewed,
    }


def _neurons(model: nn.Module) -> tuple[Group, ...]:
    """The insides of a ViT's MLPs; heads are no filters."""
    found = []
    for number, block in blocks_of(model).items():
        index, mlp = torch.arange(block.mlp.fc1.out_features)[:, None], f"blocks.{number}.mlp"
        slices = [Slice(f"{mlp}.fc1.weight", 0, index), Slice(f"{mlp}.fc2.weight", 1, index, reads=True)]
        slices += [Slice(f"{mlp}.fc1.bias", 0, index)] if block.mlp.fc1.bias is not None else []
        found.append(Group(f"{mlp}.fc1", tuple(slices)))
    return tuple(found)


def _kept(model: nn.Module, gone: dict[str, set[int]]) -> Kept:
    whole = everything(model)
    neurons = {
        number: tuple(one for one in numbers if one not in gone.get(f"blocks.{number}.mlp.fc1", ()))
        for number, numbers in whole.neurons.items()
    }
    return Kept(whole.heads, neurons)


def _group(
    groups: tuple[Group, ...], sparse: tuple[str, ...], dependent: tuple[str, ...], axis: int, model: nn.Module
) -> Group:
    """The channels that a line of the map is about."""
    known = {name for name, _ in model.named_parameters()}
    unknown = [name for name in (*sparse, *dependent) if name not in known]
    if unknown:
        raise PruningError(f"LayerThinning: the model has no {', '.join(unknown)}", "name its parameters in full")
    made, read = ("sparse", "dependent") if axis == 0 else ("dependent", "sparse")
    named = {"sparse": sparse, "dependent": dependent}
    for group in groups:
        producers, consumers = set(_matrices(group, model, reads=False)), set(_matrices(group, model, reads=True))
        if not (producers if axis == 0 else consumers) & set(sparse):
            continue
        tensors = {slice_.tensor for slice_ in group.slices}
        missing = sorted((producers - set(named[made])) | (consumers - set(named[read])))
        strange = sorted({*sparse, *dependent} - tensors)
        if missing or strange:
            told = [f"{', '.join(missing)} not named"] if missing else []
            told += [f"{', '.join(strange)} not of them"] if strange else []
            raise PruningError(
                f"LayerThinning: {', '.join(sparse)}: by the model's graph the channels of {group.name} are in other "
                f"layers than the map says: {'; '.join(told)}",
                "name all layers that make them and all that read them",
            )
        return group
    raise PruningError(
        f"LayerThinning: {', '.join(sparse)}: such {('filters', 'channels')[axis]} cannot be removed: attention, a "
        "LayerNorm or a grouped convolution has all of them",
        "leave it out; for heads of a ViT use !HeadPruningModifier",
    )


def _matrices(group: Group, model: nn.Module, *, reads: bool) -> list[str]:
    """Weights that make or read channels; depthwise ones pass them on."""
    names = [slice_.tensor for slice_ in group.slices if slice_.reads == reads and slice_.tensor.endswith(".weight")]
    owners = {name: model.get_submodule(name.removesuffix(".weight")) for name in names}
    return [
        name
        for name, layer in owners.items()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    ]


def _zeros(model: nn.Module, group: Group, sparse: tuple[str, ...], axis: int) -> set[int]:
    """Channels of which all these weights are zero."""
    nothing: Tensor = torch.ones(group.count, dtype=torch.bool)
    for slice_ in group.slices:
        if slice_.tensor in sparse and slice_.dim == axis:
            rows = model.get_parameter(slice_.tensor).detach().movedim(axis, 0).flatten(1)
            nothing &= (rows == 0).all(1).cpu()[slice_.index_CS].all(1)
    if bool(nothing.all()):
        raise PruningError(f"LayerThinning: {', '.join(sparse)}: nothing but zeros", "prune them less")
    return set(nothing.nonzero().flatten().tolist())
