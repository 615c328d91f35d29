"""The commands that make a run again, from what its files say."""

import json
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ovit_deploy import catalog
from ovit_deploy.bench.suite import LatencySuite

if TYPE_CHECKING:
    from ovit_deploy.report.gather import Gathered

_MANY = ("models", "sparsities", "batch_sizes", "threads")  # a flag gives them one value
_FLAGS = {
    "sparsities": "--sparsity",
    "batch_sizes": "--batch-size",
    "threads": "--threads",
    "duration_s": "--duration",
    "iterations": "--iterations",
    "seed": "--seed",
    "timeout_s": "--timeout",
}
_SUITE = "bench_settings.yaml"


def reproduce(run: "Gathered") -> list[str]:
    """From the dense model to the measurements, in order; a command a line, files that they need before them."""
    made = [make(run), _evaluate(run)]
    if run.card is not None:
        made.append(_export(run, run.card))
    return [*made, *(line for done in run.benches for line in bench(run, done.get("settings", {})))]


def recipe_file(run: "Gathered") -> str | None:
    """The name under which the first command expects the recipe; None if a shipped recipe says the same."""
    name = run.facts.get("recipe", run.name)
    shipped = catalog.shipped("recipes") / f"{name}.yaml"
    if shipped.is_file() and shipped.read_text(encoding="utf-8") == run.recipe_text:
        return None
    return f"{name}.yaml"


def make(run: "Gathered", name: str | None = None) -> str:
    """The command that makes the run, under its own name or another one."""
    facts = run.facts
    words = [run.verb, "--recipe", recipe_file(run) or facts.get("recipe", run.name)]
    for variable, value in facts.get("recipe_args", {}).items():
        words += ["--recipe-arg", f"{variable}={value}"]
    weights, model = facts.get("weights"), facts["model"]["name"]
    if weights == "timm hub":
        words += ["--model", model, "--pretrained"]
    elif weights == "chance" and not (run.recipe and run.recipe.model):
        words += ["--model", model]
    elif weights not in ("embedded", "chance", None):
        words += ["--model", model, "--checkpoint", weights]
    return _line([*words, *_data(run), "--name", name or run.name])


def _evaluate(run: "Gathered") -> str:
    return _line(["evaluate", "--run", run.name, *_data(run)])


def _data(run: "Gathered") -> list[str]:
    source = run.facts.get("data_source")
    return ["--data", source] if source else []


def _export(run: "Gathered", card: dict[str, Any]) -> str:
    words = ["export", "--onnx", "--run", run.name, "--profile", card["profile"]["name"]]
    return _line([*words, "--quantize", "int8"] if "post_training" in card.get("run", {}) else words)


def bench(run: "Gathered", settings: dict[str, Any]) -> Iterable[str]:
    """Measures it again; settings that flags cannot say go into a suite file, which is JSON and so YAML."""
    defaults = LatencySuite().model_dump(mode="json")
    own = {key: value for key, value in settings.items() if key not in defaults or value != defaults[key]}
    engines = own.get("engines", [])
    model = [] if own.get("models") else ["--run", run.name]
    rest = {key: value for key, value in own.items() if key not in ("engines", "kind")}
    if any(key not in _FLAGS or (key in _MANY and len(value) > 1) for key, value in rest.items()):
        yield f"cat > {_SUITE} <<'END'\n{json.dumps({'kind': 'latency', **own})}\nEND"
        yield _line(["bench", "--suite", _SUITE, *model])
        return
    flags = [word for name in engines for word in ("--engine", name)]
    for key, value in rest.items():
        flags += [_FLAGS[key], f"{value[0] if key in _MANY else value:g}"]
    yield _line(["bench", *model, *flags])


def _line(words: list[str]) -> str:
    return shlex.join(["ovit-deploy", *words])
