"""Structured pruning on a trained ViT: which groups to take, and the Pareto table of accuracy against latency.

    python bench/structured.py --checkpoint runs/cifar_dense/model.safetensors --data DATA --epochs 4
    python bench/structured.py --checkpoint ... --data DATA --epochs 4 --bench      # also times

1. Half of the FLOPs goes in heads and neurons, by group OBS and by magnitude, once; then the same epochs of training
2. Dense, unstructured (deit_75), structured (deit_heads_width) and combined (deit_heads_width_75, which is INT8), all
   trained for 14 epochs with the dense model as teacher: exported, and timed on every CPU engine that is here.

All of it goes through the command line, run by run; a run that is there already is taken as it is. Writes the runs'
own figures, and those of `bench --json`, into one JSON file.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SALIENCIES = ("obs", "magnitude")
LENGTH = 14  # epochs of the all-in-one recipe, and so of all that it is compared with
ENGINES = ("onnxruntime", "openvino", "deepsparse", "ovit", "pytorch")
FLOAT, INT8 = ("deepsparse",), ("deepsparse_int8", "onnxruntime_int8")  # export profiles
READS = {"deepsparse_int8": ("deepsparse",), "onnxruntime_int8": ("onnxruntime", "openvino", "ovit", "pytorch")}


def ovit(*arguments: str, allowed: tuple[int, ...] = (0,)) -> None:
    """One command; its output is shown."""
    print("$ ovit-deploy", *arguments, flush=True)
    code = subprocess.run([sys.executable, "-P", "-m", "ovit_deploy", *arguments], check=False).returncode
    if code not in allowed:
        sys.exit(code)


def run(verb: str, name: str, recipe: str, checkpoint: str, data: str, **variables: object) -> dict[str, Any]:
    """A run's facts; it is made if it is not there."""
    facts = Path("runs") / name / "run.json"
    if not facts.exists():
        given = [f"--recipe-arg={key}={value}" for key, value in variables.items()]
        ovit(verb, "--recipe", recipe, "--checkpoint", checkpoint, "--data", data, "--name", name, *given)
    return json.loads(facts.read_text())


def told(facts: dict[str, Any]) -> dict[str, Any]:
    """What of a run goes into the table."""
    return {key: facts[key] for key in ("dense", "final", "recipe", "recipe_args", "structure", "prunings", "seconds")}


def weights(name: str) -> str:
    """The weights of a run."""
    return f"runs/{name}/model.safetensors"


def choices(checkpoint: str, data: str, epochs: int, padding: int) -> dict[str, Any]:
    """Group OBS against magnitude groups, before training and after it."""
    found = {}
    for saliency in SALIENCIES:
        name = f"structured_{saliency}"
        oneshot = run("prune", name, "oneshot_heads_width", checkpoint, data, saliency=saliency)
        recovered = recover(name, data, epochs, padding)
        found[saliency] = {"oneshot": told(oneshot), "recovered": told(recovered), "epochs": epochs}
    return found


def recover(name: str, data: str, epochs: int, padding: int) -> dict[str, Any]:
    """Facts of a run that trains a thinned model for some epochs."""
    return run("train", f"{name}_{epochs}ep", "recover", weights(name), data, num_epochs=epochs, crop_padding=padding)


def contenders(checkpoint: str, data: str, padding: int) -> dict[str, tuple[str, dict[str, Any], tuple[str, ...]]]:
    """Name of the run, its facts, and its export profiles, by title."""
    every = {"num_epochs": LENGTH, "crop_padding": padding}
    dense = run("train", "structured_dense", "dense_longer", checkpoint, data, restarts_until=6, cycle=2, **every)
    unstructured = run("prune", "structured_deit_75", "deit_75", checkpoint, data, pruned_by=6, **every)
    structured = run("prune", "structured_heads_width", "deit_heads_width", checkpoint, data, thinned=6, **every)
    combined = run("prune", "structured_combined", "deit_heads_width_75", checkpoint, data, **every)
    return {
        "dense": ("structured_dense", dense, FLOAT),
        "unstructured": ("structured_deit_75", unstructured, FLOAT),
        "structured": ("structured_heads_width", structured, FLOAT),
        "combined": ("structured_combined", combined, INT8),
    }


def latencies(name: str, profiles: tuple[str, ...], batch_size: int) -> list[dict[str, Any]]:
    """Rows of `bench`, without every single time; an engine that fails keeps its reason."""
    rows: list[dict[str, Any]] = []
    for profile in profiles:
        ovit("export", "--onnx", "--run", name, "--profile", profile)
        output = Path("runs") / name / f"bench_{profile}.json"
        chosen = [f"--engine={engine}" for engine in READS.get(profile, ENGINES)]
        output.unlink(missing_ok=True)
        options = ("--batch-size", str(batch_size), "--output", str(output))
        ovit("bench", "--run", name, *chosen, *options, allowed=(0, 1))  # 1: an engine failed, its row says why
        own = json.loads(output.read_text())["rows"]
        rows += [{"profile": profile} | {k: v for k, v in row.items() if k != "blocks_ms"} for row in own]
    return rows


def main() -> None:
    """Run what is missing, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="the dense model, a safetensors file of a run")
    parser.add_argument("--data", required=True, help="as for prune")
    parser.add_argument("--epochs", type=int, default=4, help="of training after the removal")
    parser.add_argument("--crop-padding", type=int, default=4, help="pixels by which crops move: 4 at 32 pixels")
    parser.add_argument("--batch-size", type=int, default=16, help="of the timing")
    parser.add_argument("--bench", action="store_true", help="also train, export and time the four contenders")
    parser.add_argument("--out", type=Path, default=Path("bench/results/structured.json"))
    given = parser.parse_args()
    document: dict[str, Any] = {"format": 1, "kind": "structured", "data": Path(given.data).stem}
    document["choices"] = choices(given.checkpoint, given.data, given.epochs, given.crop_padding)
    if given.bench:
        document["pareto"] = {
            title: told(facts) | {"rows": latencies(name, profiles, given.batch_size)}
            for title, (name, facts, profiles) in contenders(given.checkpoint, given.data, given.crop_padding).items()
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
