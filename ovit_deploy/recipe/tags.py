"""Modifiers that other tools know and we do not carry out yet: each is refused by name, with what to do instead."""

_MAGNITUDE = "use !GMPruningModifier or !GlobalMagnitudePruningModifier"
_STRUCTURED = "use !HeadPruningModifier, !WidthPruningModifier or !HeadWidthPruningModifier"
_OVIT = "use !OViTPruningModifier, or !CAPruningModifier with the same keys"
_FAST = "use !FastOViTPruningModifier, whose damp is relative to the mean diagonal"
_WEIGHTS = "remove it: only masks, learning rates, weight decay and what is trained can be scheduled"
_QUANTIZE = "use !QuantizationModifier; recipes/README.md lists its keys"

NOT_YET: dict[str, str] = {
    "FastCAPruningModifier": _FAST,
    "FastCAPPruningModifier": _FAST,
    "OBC_OBS_PruningModifier": f"it is the earlier name of CAP; {_OVIT}",
    "TopKASTPruningModifier": f"it updates more weights than it keeps; {_MAGNITUDE}",
    "StructuredPruningModifier": f"it removes whole filters; {_STRUCTURED}",
    "LayerThinningModifier": f"layers are thinned where they are pruned: {_STRUCTURED}",
    "LayerPruningModifier": "it names layers; use !DepthPruningModifier, which chooses blocks",
    "PowerpropagationModifier": f"it trains other weights than it stores; {_MAGNITUDE}",
    "ASRegModifier": "remove it: regularisers cannot be scheduled",
    "vLLMQuantizationModifier": _QUANTIZE,
    "GPTQModifier": _QUANTIZE,
    "AWQModifier": _QUANTIZE,
    "SmoothQuantModifier": _QUANTIZE,
    "LogarithmicEqualizationModifier": _QUANTIZE,
    "SparseGPTModifier": "use !SparseGPTPruningModifier",
    "OutputDistillationModifier": "use !DistillationModifier",
    "PerLayerDistillationModifier": "use !DistillationModifier, which compares outputs",
    "SetParamModifier": _WEIGHTS,
    "GradualParamModifier": _WEIGHTS,
    "SparsificationLoggingModifier": "remove it: metrics.jsonl in the run's folder tells the sparsity",
}


def refusal(tag: str) -> str | None:
    """Why a known modifier is not carried out, and what to use; nothing for an unknown one."""
    hint = NOT_YET.get(tag)
    return f"!{tag} is not supported yet; {hint}" if hint else None
