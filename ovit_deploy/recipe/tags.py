"""Modifiers that other tools know and we do not carry out yet: each is refused by name, with what to do instead."""

_MAGNITUDE = "use !GMPruningModifier or !GlobalMagnitudePruningModifier"
_FAST = "use !FastOViTPruningModifier, whose damp is relative to the mean diagonal"
_QUANTIZE = "use !QuantizationModifier; recipes/README.md lists its keys"

NOT_YET: dict[str, str] = {
    "FastCAPPruningModifier": _FAST,
    "TopKASTPruningModifier": "it trains weights that it leaves out; use !RigLPruningModifier or !ACDCPruningModifier",
    "LayerPruningModifier": "it names layers; use !DepthPruningModifier, which chooses blocks",
    "PowerpropagationModifier": f"it trains other weights than it stores; {_MAGNITUDE}",
    "ASRegModifier": "remove it: regularisers cannot be scheduled",
    "vLLMQuantizationModifier": _QUANTIZE,
    "GPTQModifier": _QUANTIZE,
    "AWQModifier": _QUANTIZE,
    "SmoothQuantModifier": _QUANTIZE,
    "LogarithmicEqualizationModifier": _QUANTIZE,
    "SparseGPTModifier": "use !SparseGPTPruningModifier, or the keys of llm-compressor in a mapping",
    "OutputDistillationModifier": "use !DistillationModifier",
}


def refusal(tag: str) -> str | None:
    """Why a known modifier is not carried out, and what to use; nothing for an unknown one."""
    hint = NOT_YET.get(tag)
    return f"!{tag} is not supported yet; {hint}" if hint else None
