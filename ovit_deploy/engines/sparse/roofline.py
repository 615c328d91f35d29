"""What every layer takes, and how much of what the processor can do at most (Williams et al., CACM 2009) that is.

Operations are those of the zeros that are not skipped, of real tokens alone: what fills the last vector is waste.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ovit_deploy.engines.sparse.library import PLACES, Native
from ovit_deploy.engines.sparse.network import Attention, Linear

PER_WORD = 4


def layers(native: Native, images: np.ndarray, count: int) -> list[dict[str, Any]]:
    """As ``engines.base.Engine.profile``, with ``operations`` of a run and ``of_peak`` where there are products.

    Args:
        native: the network.
        images: [batch, channels, height, width].
        count: runs; each layer's time is their mean.
    """
    seconds = np.mean([native.profile(images) for _ in range(count)], axis=0)
    peaks = {integers: native.peak(integers=integers) for integers in (False, True)}
    told = _work(native, len(images))
    assert len(told) == len(seconds)
    for layer, taken in zip(told, seconds, strict=True):
        layer["ms"] = 1000 * float(taken)
        if operations := layer.get("operations"):
            layer["of_peak"] = operations / (taken * peaks["int8" in layer["precision"]])
    return told


def _work(native: Native, batch: int) -> list[dict[str, Any]]:
    """What there is to do, in the order of `Native.profile`."""
    network, entries = native.network, iter(native.entries())
    patches, tokens = batch * len(network.position), batch * network.tokens
    found = [_product("patch_embed.proj", network.embedding, next(entries), patches)]
    for number, block in enumerate(network.blocks):
        linears = {
            "attn.qkv": block.attention.qkv,
            "attn.proj": block.attention.proj,
            "mlp.fc1": block.mlp.fc1,
            "mlp.fc2": block.mlp.fc2,
        }
        for place in PLACES:
            name = f"blocks.{number}.{place}"
            if place in linears:
                found.append(_product(name, linears[place], next(entries), tokens))
            elif place == "attn":
                found.append(_attention(name, block.attention, batch, network.tokens))
            else:
                found.append({"names": [name], "type": "LayerNormalization", "kernel": "", "precision": "none"})
    return [*found, {"names": ["head"], "type": "head", "kernel": "", "precision": "none"}]


def _product(name: str, linear: Linear, entries: int | None, tokens: int) -> dict[str, Any]:
    precision, words = ("float32", 1) if linear.scale is None else ("int8", PER_WORD)
    form, held = ("dense", linear.weight.size) if entries is None else ("sparse", entries * words)
    return {
        "names": [f"{name}.weight"],
        "type": "MatMul",
        "kernel": form,
        "precision": f"{form} {precision}",
        "operations": 2 * held * tokens,
    }


def _attention(name: str, attention: Attention, batch: int, tokens: int) -> dict[str, Any]:
    inner = attention.proj.weight.shape[1]
    precision = "float32" if attention.query is None else "int8"
    operations = 2 * 2 * batch * tokens * tokens * inner
    return {"names": [name], "type": "Attention", "kernel": "", "precision": precision, "operations": operations}
