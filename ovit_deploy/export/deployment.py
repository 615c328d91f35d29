"""The stage: a model becomes a folder that can be deployed.

<destination>/
    model.onnx                     the sparse graph, weights inside
    model.json                     what it is (see card.py)
    model.onnx.packed              the same file in a fraction of the space, where asked for (see packed.py)
    recipe.yaml                    the recipe that pruned it, as it was run
    sample-inputs/inp-0000.npz     preprocessed images, one a file: array "images" [C, H, W]
    sample-outputs/out-0000.npz    PyTorch's logits for them: array "logits" [classes]
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import Tensor, nn

from ovit_deploy.errors import ExportError
from ovit_deploy.export.card import Facts, make_card
from ovit_deploy.export.packed import pack_file
from ovit_deploy.export.profile import Profile
from ovit_deploy.export.to_onnx import INPUT, OUTPUT, frozen, to_onnx
from ovit_deploy.export.transaction import replacing
from ovit_deploy.export.verify import verify
from ovit_deploy.quantization import fixed, is_quantized

NUM_SAMPLES = 5


@dataclass(frozen=True)
class ExportReport:
    """What was written: the folder, the size of the ONNX file in bytes, and model.json."""

    folder: Path
    size_bytes: int
    card: dict[str, Any]

    @property
    def file(self) -> Path:
        """The ONNX file."""
        return self.folder / "model.onnx"


def export(
    model: nn.Module,
    *,
    images: Tensor,
    masks: Mapping[str, Tensor],
    profile: Profile,
    facts: Facts,
    recipe_text: str,
    destination: Path,
    compress: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> ExportReport:
    """Write the model as ONNX, prove that the file is the model, and put the folder in its place.

    The folder is made beside its place, verified there and swapped in. Until then a previous export stands
    untouched, and after any failure too.

    Args:
        model: the pruned model; it is copied, not changed.
        images: preprocessed, N x C x H x W; all are used to verify, the first few are kept as samples.
        masks: of the pruned weights, by name, True = kept.
        profile: from ``load_profile``.
        facts: what the card says about the model.
        recipe_text: the recipe that pruned it.
        destination: the folder to make, or an earlier export to replace.
        compress: write model.onnx.packed, too.
        progress: told each step, in a word or two, before it begins.

    Raises:
        ExportError: the file is not the model.
        RunError: the destination cannot be written, or holds something else.
    """
    _check_precision(model, profile)
    model, images = fixed(frozen(model)), images.detach().cpu()
    with replacing(destination, marker="model.json") as folder:
        file = folder / "model.onnx"
        progress("tracing")
        ir.save(to_onnx(model, images, profile=profile), file)
        progress("verifying")
        checked = verify(file, model, images, masks=masks, profile=profile)
        progress("writing")
        card = make_card(file, images, facts=facts, masks=masks, profile=profile, checked=checked)
        if compress:
            packed = pack_file(file)
            card["packed"] = {"file": packed.name, "bytes": packed.stat().st_size}
        (folder / "model.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        (folder / "recipe.yaml").write_text(recipe_text, encoding="utf-8")
        _save_samples(folder / "sample-inputs", "inp", INPUT, images)
        _save_samples(folder / "sample-outputs", "out", OUTPUT, checked.logits)
        size_bytes = file.stat().st_size
    return ExportReport(destination, size_bytes, card)


def _check_precision(model: nn.Module, profile: Profile) -> None:
    """Refuse a quantized model in a float profile, and the reverse."""
    if is_quantized(model) and profile.precision == "float32":
        raise ExportError(
            f"the model is quantized, profile {profile.name} is for float32", f"--profile {profile.name}_int8"
        )
    if not is_quantized(model) and profile.precision == "int8":
        raise ExportError(
            f"profile {profile.name} is for quantized models, this one is float32",
            "train it with !QuantizationModifier, or add --quantize int8",
        )


def _save_samples(folder: Path, prefix: str, name: str, values: Tensor) -> None:
    folder.mkdir()
    for number, value in enumerate(values[:NUM_SAMPLES]):
        arrays: dict[str, Any] = {name: value.numpy()}
        np.savez(folder / f"{prefix}-{number:04d}.npz", **arrays)
