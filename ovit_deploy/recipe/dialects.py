"""Other tools' words for ours: one text may mean two things, and a recipe's ``dialect`` says which.

================  ==============================================  =============================================
                  ``dialect: sparseml`` (the default)             ``dialect: cap``
================  ==============================================  =============================================
lr_func linear    one ramp from start to end                      a saw tooth of cycle_epochs (default: the range)
lr_func cosine    one half wave from start to end                 a half wave each cycle_epochs
mask_type N:M     N of M are kept                                 N of M become zero
n, m keys         N of M become zero, as in the only recipes that have them
================  ==============================================  =============================================

Modifiers in a mapping instead of a tagged list are those of SparseML's refactored core and of llm-compressor:
``targets`` are our ``params``, ``start``, ``end`` and ``update`` our epochs, and ``mask_structure`` counts zeros.
"""

from typing import Any, Literal

from ovit_deploy.recipe import llm_compressor, mask_types, quantization

Dialect = Literal["sparseml", "cap"]
DIALECTS: tuple[Dialect, ...] = ("sparseml", "cap")
FROM_PARAM = "__FROM_PARAM__"

# What only says how to log or where to compute changes no result.
_DROPPED = {"log_types", "constant_logging", "fisher_inv_device", "blocks_in_parallel", "traces_backup_dir"}
_RENAMED = {
    "targets": "params",
    "start": "start_epoch",
    "end": "end_epoch",
    "update": "update_frequency",
    "update_scheduler": "inter_func",
    "mask_structure": "mask_type",
    "apply_globally": "global_sparsity",
}
_ONE_SHOT = {"start_epoch": 0, "end_epoch": 0, "update_frequency": 1}


def read_tagged(tag: str, values: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The keys of a tagged modifier, in our words."""
    values = {key: value for key, value in values.items() if key not in _DROPPED}
    if tag == "LearningRateFunctionModifier" and dialect == "cap":
        values = _cyclic(values)
    if tag == "QuantizationModifier":
        values = quantization.from_older_form(values)
    mask = values.get("mask_type")
    if isinstance(mask, str) and mask.upper() == "N:M" and {"n", "m"} <= values.keys():
        values["mask_type"] = mask_types.of_zeros(f"{values.pop('n')}:{values.pop('m')}")
    elif dialect == "cap" and mask is not None:
        values["mask_type"] = mask_types.of_zeros(mask)
    return values


def read_untagged(tag: str, values: dict[str, Any], *, one_shot: bool) -> tuple[str, dict[str, Any]]:
    """The tag and keys of a modifier in a mapping, in our words."""
    if llm_compressor.is_theirs(tag, values):
        return llm_compressor.NAMES[tag], llm_compressor.read(tag, values)
    values = {_RENAMED.get(key, key): value for key, value in values.items()}
    if "mask_type" in values:
        values["mask_type"] = mask_types.of_zeros(values["mask_type"])
    if tag == "MagnitudePruningModifier":
        values = ({"init_sparsity": values.get("final_sparsity")} | _ONE_SHOT | values) if one_shot else values
        tag = "GlobalMagnitudePruningModifier" if values.get("global_sparsity") is True else tag
    return tag, values


def _cyclic(values: dict[str, Any]) -> dict[str, Any]:
    function = values.get("lr_func")
    if not isinstance(function, str) or function.startswith("cyclic_"):
        return values
    start, end = values.get("start_epoch"), values.get("end_epoch")
    if isinstance(start, int | float) and isinstance(end, int | float) and end > start:
        values = {"cycle_epochs": end - start} | values
    return values | {"lr_func": f"cyclic_{function}"}
