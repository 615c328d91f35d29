"""A run that is small enough to be cut off many times, with all that training remembers in it. Torch is used in child
processes only: they are forked from a server that has imported everything and computed nothing."""

import functools
import hashlib
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.data import ImageData
from ovit_deploy.data.sources import ArrayImages
from ovit_deploy.finetune.loop import Progress
from ovit_deploy.finetune.run import Finished, Watchers, run
from ovit_deploy.models import Choice
from ovit_deploy.recipe.load import parse_recipe

SPEC = ModelSpec(
    "vit_tiny_patch16_224",
    {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2},
)
NAME = "cut"
# Eight steps an epoch; prunings before steps 8, 12 and 16; drop path, mixing, distillation, an average.
GRADUAL = """
training: {batch_size: 8, ema_decay: 0.9, augmentation: {crop_padding: 2, mixup: 0.2, drop_path: 0.1}}
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
  - !LearningRateFunctionModifier {lr_func: linear, init_lr: 1e-2, final_lr: 1e-4, start_epoch: 0, end_epoch: 3}
  - !DistillationModifier {start_epoch: 0.5, end_epoch: 2.5}
  - !TrainableParamsModifier {params: ["re:.*pos_embed"], trainable: false, start_epoch: 1, end_epoch: 2}
  - !OViTPruningModifier
    params: ["re:blocks.*(attn|mlp).*weight"]
    init_sparsity: 0.5
    final_sparsity: 0.75
    start_epoch: 1
    end_epoch: 2
    update_frequency: 0.5
    fisher_block_size: 16
    num_grads: 32
"""
RECIPES = {
    "gradual": GRADUAL,
    "fisher average": GRADUAL.replace("num_grads: 32", "num_grads: 32\n    fisher_ema: 0.5"),
    "int8": GRADUAL.replace("ema_decay: 0.9, ", "").replace("end_epoch: 3", "end_epoch: 4")
    + "  - !QuantizationModifier {start_epoch: 2.5, disable_quantization_observer_epoch: 2.75}\n",
    "thinned": GRADUAL
    + """
  - !HeadWidthPruningModifier
    init_sparsity: 0.2
    final_sparsity: 0.4
    start_epoch: 0.5
    end_epoch: 1
    update_frequency: 0.5
    num_grads: 32
    multiple_of: 8
    min_width: 8
  - !DepthPruningModifier {final_sparsity: 0.5, start_epoch: 0.75, end_epoch: 0.75, num_grads: 32}
""",
    "movement": GRADUAL.replace("OViTPruning", "MovementPruning").split("    fisher_block")[0],
    "ac/dc": """
training: {batch_size: 8, optimizer: sgd, learning_rate: 1e-2}
modifiers:
  - !ACDCPruningModifier
    params: ["re:blocks.*(attn|mlp).*weight"]
    compression_sparsity: 0.7
    start_epoch: 0
    end_epoch: 3
    update_frequency: 0.5
""",
}


def images(seed: int = 0) -> ImageData:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 4, 80)
    pixels = (draw.integers(0, 100, (80, 16, 16, 3)) + 30 * labels[:, None, None, None]).astype(np.uint8)
    train, test = ArrayImages(pixels[:64], labels[:64]), ArrayImages(pixels[64:], labels[64:])
    return ImageData("random", train, test, ("a", "b", "c", "d"))


def go(runs: Path, recipe: str = "gradual", **settings: Any) -> Finished:
    """``recipe`` is one of RECIPES, or a text."""
    torch.set_num_threads(1)
    return run(parse_recipe(RECIPES.get(recipe, recipe)), Choice(SPEC), images(), name=NAME, runs=runs, **settings)


def sha256(runs: Path) -> str:
    return hashlib.sha256((runs / NAME / "model.safetensors").read_bytes()).hexdigest()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at_step(runs: Path, step: int, recipe: str, resume: bool, **settings: Any) -> None:
    """Killed right after that step, before anything of it is saved."""

    def watch(done: Progress) -> None:
        if done.step == step:
            die()

    go(runs, recipe, resume=resume, watchers=Watchers(step=watch), **settings)


def dying_at_call(runs: Path, module: str, name: str, number: int, recipe: str, resume: bool) -> None:
    """Killed in that call of a module's function."""
    place = importlib.import_module(module)
    called, real = 0, getattr(place, name)

    def counted(*arguments: Any, **settings: Any) -> Any:
        nonlocal called
        called += 1
        if called == number:
            die()
        return real(*arguments, **settings)

    setattr(place, name, counted)
    go(runs, recipe, resume=resume)


def dying_in_a_write(runs: Path, number: int, recipe: str, resume: bool) -> None:
    """Killed when half of a file is written."""
    from ovit_deploy import checkpoint

    called, real = 0, checkpoint.write

    def half(path: Path, content: bytes | str) -> None:
        nonlocal called
        called += 1
        if called == number:
            path.with_name(f".{path.name}.{os.getpid()}.partial").write_bytes(content[: len(content) // 2])
            die()
        real(path, content)

    checkpoint.write = half
    go(runs, recipe, resume=resume)


def in_a_process(what: Callable[..., Any], *arguments: Any) -> int:
    """The exit code of a process of its own that does it; -9 where it was killed."""
    process = start(what, *arguments)
    process.join(300)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def start(what: Callable[..., Any], *arguments: Any) -> Any:
    """A process of its own that does it."""
    process = _server().Process(target=what, args=arguments)
    process.start()
    return process


@functools.cache
def _server() -> Any:
    """Forks processes that have imported this module; its path is in the environment, as Python 3.11 passes on none."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["run_to_kill"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context
