"""Pruned, then rounded: to the nearest integers, or one weight at a time while the others make up for it.

    python bench/rounding.py        # about 15 minutes on two cores

oViT prunes the shipped ViT once, to 75 and 90 %, and its kept weights take 8 or 4 bits (`oneshot_ovit_quantized`, seed
0, activations in floating point). All 10,000 test images of Fashion-MNIST; training images make the Fisher matrices.

All of it goes through the command line, run by run; runs that are there already are taken as they are. Writes one JSON
file.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BITS, SPARSITIES = (8, 4), (0.75, 0.9)


def ovit(*arguments: str) -> str:
    """One command; what it printed to stdout."""
    print("$ ovit-deploy", *arguments, flush=True)
    command = [sys.executable, "-P", "-m", "ovit_deploy", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def runs(bits: int, *, jointly: bool, num_grads: int) -> list[Path]:
    """A run for each sparsity, made if it is not there."""
    name = f"rounding_{bits}_{'jointly' if jointly else 'nearest'}_{num_grads}"
    folders = [Path("runs") / f"{name}-{100 * sparsity:g}" for sparsity in SPARSITIES]
    if not all(folder.exists() for folder in folders):
        given = f"bits={bits},num_grads={num_grads}" + (f",weight_bits={bits}" if jointly else "")
        wanted = ",".join(map(str, SPARSITIES))
        ovit("prune", "--recipe", "oneshot_ovit_quantized", "--recipe-arg", given, "--sweep", wanted, "--name", name)
    return folders


def row(folder: Path, data: str, **about: object) -> dict[str, Any]:
    """What became of one run."""
    (pruning,) = json.loads((folder / "run.json").read_text())["prunings"]
    found = json.loads(ovit("evaluate", "--checkpoint", str(folder / "model.safetensors"), "--data", data, "--json"))
    told = {key: found[key] for key in ("top1", "interval95", "correct", "images", "loss", "zeros")}
    return {**about, "sparsity": pruning["sparsity"], **told}


def main() -> None:
    """Run what is missing, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="whose test images are looked at")
    parser.add_argument("--num-grads", type=int, default=4096, help="of the Fisher matrices")
    parser.add_argument("--out", type=Path, default=Path("bench/results/zen4-2cores/rounding.json"))
    given = parser.parse_args()
    rows = [
        row(folder, given.data, bits=bits, jointly=jointly)
        for bits in BITS
        for jointly in (False, True)
        for folder in runs(bits, jointly=jointly, num_grads=given.num_grads)
    ]
    command = f"python bench/rounding.py --data {given.data} --num-grads {given.num_grads}"
    document = {"format": 1, "kind": "rounding", "command": command, "seed": 0, "data": given.data, "rows": rows}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
