"""Commands that reproduce a run are commands that ovit-deploy takes."""

import json
import shlex
from pathlib import Path

import pytest

from ovit_deploy.bench.suite import LatencySuite, load_suite, override
from ovit_deploy.cli import app
from ovit_deploy.report.commands import recipe_file, reproduce
from ovit_deploy.report.gather import gather


def of(folder: Path) -> list[str]:
    (run,) = gather([folder]).runs
    return reproduce(run)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, "prune --recipe deit_75 --name deit_75"),
        ({"recipe": "mine"}, "prune --recipe mine.yaml --name deit_75"),
        ({"recipe_args": {"num_epochs": "6"}}, "prune --recipe deit_75 --recipe-arg num_epochs=6 --name deit_75"),
        ({"weights": "a b.safetensors"}, "--checkpoint 'a b.safetensors' --name deit_75"),
        ({"weights": "timm hub", "data_source": "images"}, "--pretrained --data images --name deit_75"),
    ],
)
def test_the_run_is_made_by_one_command(make, facts, expected: str) -> None:
    first, second, *_ = of(make(**facts))
    assert first.startswith("ovit-deploy prune") and first.endswith(expected.removeprefix("prune "))
    assert second.startswith("ovit-deploy evaluate --run deit_75")


def test_every_command_is_one_that_the_command_line_takes(make) -> None:
    for command in of(make(recipe_args={"num_epochs": "6"}, data_source="fashion-mnist")):
        verb, bound, _ = app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)
        assert bound.kwargs, verb


@pytest.mark.parametrize(
    "changed",
    [
        {"engines": ["onnxruntime", "openvino:precision=bf16"], "threads": [2], "duration_s": 2.5, "seed": 3},
        {"engines": ["onnxruntime"], "batch_sizes": [1, 16], "iterations": 7},
    ],
)
def test_a_benchmark_is_told_by_flags_or_by_a_suite(make, changed) -> None:
    folder = make()
    path = folder / "bench.json"
    bench = json.loads(path.read_text())
    settings = override(LatencySuite(), changed).model_dump(mode="json")
    path.write_text(json.dumps(bench | {"settings": settings}))
    *before, last = [line for line in of(folder) if "bench" in line]
    if before:
        name, text = before[0].removeprefix("cat > ").removesuffix("\nEND").split(" <<'END'\n")
        Path(name).write_text(text)
        assert load_suite(name).model_dump(mode="json") == settings
        assert last == f"ovit-deploy bench --suite {name} --run deit_75"
    else:
        assert last == (
            "ovit-deploy bench --run deit_75 --engine onnxruntime --engine openvino:precision=bf16 --threads 2 "
            "--duration 2.5 --seed 3"
        )


def test_a_recipe_that_is_not_shipped_stands_on_the_page(make) -> None:
    folder = make()
    assert recipe_file(gather([folder]).runs[0]) is None
    (folder / "recipe.yaml").write_text((folder / "recipe.yaml").read_text() + "# mine\n")
    assert recipe_file(gather([folder]).runs[0]) == "deit_75.yaml"
