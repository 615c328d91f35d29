"""model.json: what the exported file is, for whoever finds it without the run it came from."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import Tensor

from ovit_deploy.export.profile import Profile
from ovit_deploy.export.to_onnx import INPUT, OUTPUT
from ovit_deploy.export.verify import Verification
from ovit_deploy.export.zeros import Stored, stored_weights

FORMAT = 1


@dataclass(frozen=True)
class Facts:
    """What only the run knows of a model.

    Attributes:
        name: of the timm model.
        kwargs: that timm builds it with.
        classes: names, in the order of the logits.
        preprocessing: input_size, mean, std, interpolation, crop_pct, ...
        run: whatever else the run says of itself (data, accuracy, seed), copied as it is.
        structure: which parts of the timm model are left, where some were removed.
        token_merging: how many tokens go in a block, where they are merged.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    classes: Sequence[str] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    structure: Mapping[str, Any] | None = None
    token_merging: Mapping[str, int] | None = None


def make_card(
    path: Path, images: Tensor, *, facts: Facts, masks: Mapping[str, Tensor], profile: Profile, checked: Verification
) -> dict[str, Any]:
    """The content of model.json. Sparsities are counted in the file."""
    batch = profile.batch if profile.batch != "dynamic" else "batch"
    return {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "ovit_deploy": version("ovit-deploy"),
        "model": {"name": facts.name, "kwargs": dict(facts.kwargs)}
        | ({"structure": facts.structure} if facts.structure else {})
        | ({"token_merging": facts.token_merging} if facts.token_merging else {}),
        "input": {"name": INPUT, "shape": list(images.shape[1:]), "batch": batch, "dtype": "float32"},
        "output": {"name": OUTPUT, "shape": list(checked.logits.shape[1:]), "batch": batch, "dtype": "float32"},
        "classes": list(facts.classes),
        "preprocessing": dict(facts.preprocessing),
        "run": dict(facts.run),
        "sparsity": sparsities(path, masks),
        "profile": profile.model_dump(mode="json"),
        "verification": {
            "num_images": checked.num_images,
            "max_abs_difference": checked.max_abs_difference,
            "top1_agreement": checked.top1_agreement,
            "cosine": checked.cosine,
        },
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "versions": {
            **{name: version(name) for name in ("torch", "timm", "onnx", "onnxscript", "onnxruntime")},
            "exporter": "torch.onnx.export(dynamo=True)",
        },
    }


def sparsities(path: Path, masks: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fractions of zeros in the file: of each pruned weight, of them together, and of everything stored."""
    stored = stored_weights(ir.load(path))
    return {
        "prunable": _sparsity([stored[name] for name in masks]),
        "all": _sparsity(list(stored.values())),
        "layers": {name: _sparsity([stored[name]]) for name in masks},
    }


def _sparsity(weights: list[Stored]) -> float:
    size = sum(weight.size for weight in weights)
    return sum(weight.zeros for weight in weights) / size if size else 0.0
