"""Does time follow FLOPs where parts of a ViT are gone? DeiT-Small, random weights, one thread, all forms in turns.

    python bench/thinned.py --out bench/results/<machine>/thinned.json       # 11 minutes; it wants a quiet machine

Half of the heads, half of the MLP widths, both, or half of the blocks are removed, and the files take turns on each
engine. Told are the part of the FLOPs and of the time that is left, the time with a 95 % interval (bootstrap over
rounds); layers are profiled after that and added up by what they are, so that one sees which do not follow.
"""

import argparse
import dataclasses
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir
import timm
import torch
from torch import nn

from ovit_deploy.bench import hardware, noise, results
from ovit_deploy.bench.latency import measure_latency
from ovit_deploy.bench.settings import Settings
from ovit_deploy.bench.source import Source
from ovit_deploy.bench.subject import Subject, prepare
from ovit_deploy.export.profile import load_profile
from ovit_deploy.export.to_onnx import to_onnx
from ovit_deploy.flops import flops
from ovit_deploy.structure.removal import Kept, everything, remove

MODEL = "deit_small_patch16_224"
ENGINES = ("onnxruntime", "openvino")
FORMS = {  # the part of the heads and of the widths that stays, and every how manyth block
    "half of the heads": (0.5, 1.0, 1),
    "half of the widths": (1.0, 0.5, 1),
    "half of both": (0.5, 0.5, 1),
    "half of the blocks": (1.0, 1.0, 2),
    "dense": (1.0, 1.0, 1),
}


def thinned(heads: float, widths: float, every: int) -> nn.Module:
    """The model with random weights, without what goes."""
    torch.manual_seed(0)
    model = timm.create_model(MODEL).eval()
    whole = everything(model)
    stays = [block for block in whole.heads if block % every == 0]
    remove(
        model,
        Kept(
            {block: whole.heads[block][: round(heads * len(whole.heads[block]))] for block in stays},
            {block: whole.neurons[block][: round(widths * len(whole.neurons[block]))] for block in stays},
        ),
    )
    return model


def write_forms(folder: Path) -> dict[str, int]:
    """Every form as ONNX; returns the FLOPs of one image."""
    counted = {}
    for form, parts in FORMS.items():
        model = thinned(*parts)
        counted[form] = flops(model, ()).total
        graph = to_onnx(model, torch.zeros(1, 3, 224, 224), profile=load_profile("deepsparse"))
        onnx_ir.save(graph, folder / f"{form}.onnx")
    return counted


def subject_of(folder: Path, batch_size: int) -> Subject:
    """All forms as variants of one subject; the last is what the others are compared with."""
    files = tuple(folder / f"{form}.onnx" for form in FORMS)
    made = prepare(Source(MODEL, files, checkpoints=(None,) * len(files)), batch_size=batch_size, seed=0, folder=folder)
    named = [dataclasses.replace(one, weights=form) for one, form in zip(made.variants, FORMS, strict=True)]
    return dataclasses.replace(made, variants=tuple(named))


def by_kind(row: results.Row) -> dict[str, float]:
    """Milliseconds of the profiled layers: products with weights, then the rest by operator."""
    assert row.evidence is not None
    found = Counter[str]()
    for layer in row.evidence.layers:
        found["products with weights" if layer["pruned"] else layer["type"]] += layer["ms"]
    return dict(found.most_common())


def told(row: results.Row, counted: dict[str, int]) -> dict[str, Any]:
    """What is kept of a row."""
    faster = row.vs_dense
    of_time = (1 / faster.factor, 1 / faster.high, 1 / faster.low) if faster else (1.0, 1.0, 1.0)
    facts = {"engine": row.engine, "form": row.weights, "flops": counted[row.weights], "layers_ms": by_kind(row)}
    facts |= {"of_flops": counted[row.weights] / counted["dense"], "of_time": of_time[0], "interval95": of_time[1:]}
    return facts | {"latency": dataclasses.asdict(row.latency) if row.latency else None}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--duration", type=float, default=20, help="timed seconds of each form on each engine")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cores, busy = noise.look(1)
    noise.require_quiet_start(busy, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counted = write_forms(folder)
        settings = Settings(ENGINES, threads=1, duration_s=given.duration, cores=cores, evidence=True)
        rows = [told(row, counted) for row in measure_latency(subject_of(folder, given.batch_size), settings)]
    for row in rows:
        low, high = row["interval95"]
        shares = f"FLOPs {row['of_flops']:.3f}  time {row['of_time']:.3f} ({low:.3f} to {high:.3f})"
        print(f"{row['engine']:12s} {row['form']:20s} {shares}")
    document = {"format": 1, "kind": "thinned", "model": MODEL, "batch_size": given.batch_size}
    results.write(given.out, document | {"hardware": hardware.describe(), "rows": rows})


if __name__ == "__main__":
    main()
