"""The sparse engine's integer products beside FBGEMM's kernel for blocks of 1 x 4, one thread, on the same zeros.

    python bench/fbgemm.py --out bench/results/<machine>/fbgemm.json       # DeiT-Small, 80 and 90 % zeros: a minute

FBGEMM's kernel (Elsen et al., Fast Sparse ConvNets, CVPR 2020, is its idea) is reached through torch's quantized sparse
linear layer; it runs no whole transformer, so the four products of all blocks are compared, each with the bias and the
way back from int32 in it. Ours also have what stands before them: their inputs come as float32 and are rounded, and
GELU is part of fc2. In turns, round by round; medians and quartiles over rounds.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovit_deploy.bench import hardware, results, source
from ovit_deploy.cli.random_export import export
from ovit_deploy.engines.sparse.library import PLACES, Native
from ovit_deploy.engines.sparse.network import Linear, Network
from ovit_deploy.engines.sparse.recognize import recognize

MODEL = "deit_small_patch16_224"
PRODUCTS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
PACK = {"FBGEMM 1x4": torch.ops.sparse.qlinear_prepack, "FBGEMM dense": torch.ops.quantized.linear_prepack}
RUN = {"FBGEMM 1x4": torch.ops.sparse.qlinear, "FBGEMM dense": torch.ops.quantized.linear}


def products(network: Network) -> list[Linear]:
    """In the order of PRODUCTS, block by block."""
    return [
        linear
        for block in network.blocks
        for linear in (block.attention.qkv, block.attention.proj, block.mlp.fc1, block.mlp.fc2)
    ]


def fbgemm(form: str, network: Network) -> Callable[[], np.ndarray]:
    """Seconds of each of PRODUCTS, added over blocks."""
    layers = []
    for linear in products(network):
        out, size = linear.weight.shape
        scale = torch.from_numpy(linear.scale).double()
        weight = torch.from_numpy(linear.weight * linear.scale[:, None])
        weight = torch.quantize_per_channel(weight, scale, torch.zeros(out, dtype=torch.int64), 0, torch.qint8)
        assert (weight.int_repr().numpy() == linear.weight).all()
        blocks = (1, 4) if form == "FBGEMM 1x4" else ()
        x = torch.rand(network.tokens, size)
        layers.append(
            (
                PACK[form](weight, torch.from_numpy(linear.bias), *blocks),
                torch.quantize_per_tensor(x, 1 / 255, 0, torch.quint8),
            )
        )

    def seconds() -> np.ndarray:
        taken = np.zeros(len(PRODUCTS))
        for number, (packed, x) in enumerate(layers):
            start = time.perf_counter()
            RUN[form](x, packed, 0.05, 128)
            taken[number % len(PRODUCTS)] += time.perf_counter() - start
        return taken

    return seconds


def ours(network: Network) -> Callable[[], np.ndarray]:
    """The same of the sparse engine."""
    native, places = Native(network), [PLACES.index(name) for name in PRODUCTS]
    images = np.random.default_rng(0).standard_normal((1, network.channels, network.height, network.width))
    images = images.astype(np.float32)
    return lambda: native.profile(images)[1:-1].reshape(-1, len(PLACES)).sum(0)[places]


def measure(network: Network, rounds: int) -> list[dict[str, Any]]:
    """A row for every contestant."""
    contestants = {"ovit": ours(network)} | {form: fbgemm(form, network) for form in PACK}
    for run in contestants.values():
        run()
    found: dict[str, list[np.ndarray]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)[:: 1 if number % 2 else -1]
        for name in names:
            found[name].append(1000 * contestants[name]())
    rows = []
    for name, times in found.items():
        low, middle, high = np.percentile(np.sum(times, axis=1), (25, 50, 75)).tolist()
        layers = dict(zip(PRODUCTS, np.median(times, axis=0).tolist(), strict=True))
        rows.append({"kernel": name, "median_ms": middle, "quartiles_ms": [low, high], "layers_ms": layers})
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.quantized.engine = "fbgemm"
    warnings.simplefilter("ignore")  # torch means to move these layers
    sparsities = (0.8, 0.9)
    document = {"format": 1, "kind": "fbgemm", "model": MODEL, "hardware": hardware.describe(), "results": []}
    with tempfile.TemporaryDirectory() as folder:
        made = source.from_random(
            MODEL, sparsities, pattern="block4", precision="int8", seed=0, folder=Path(folder), export=export
        )
        for sparsity, path in zip(sparsities, made.files, strict=True):
            rows = measure(recognize(str(path)), given.rounds)
            document["results"].append({"sparsity": sparsity, "rows": rows})
            for row in rows:
                low, high = row["quartiles_ms"]
                print(f"{sparsity:.0%}  {row['kernel']:13s} {row['median_ms']:.2f} ms ({low:.2f} to {high:.2f})")
    results.write(given.out, document)


if __name__ == "__main__":
    main()
