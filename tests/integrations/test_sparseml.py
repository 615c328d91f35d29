"""A real SparseML 1.8.0, in its own environment (make_sparseml_env.sh): our pruner in it, its engine beside ours."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent / "manager")]
import inside_sparseml  # noqa: E402

from ovit_deploy.manager import ScheduledModifierManager  # noqa: E402
from ovit_deploy.recipe.schema import MODIFIERS  # noqa: E402

ENVIRONMENT = os.environ.get("OVIT_DEPLOY_SPARSEML_ENV")
sparseml = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not ENVIRONMENT, reason="OVIT_DEPLOY_SPARSEML_ENV is not set: run tests/integrations/make_sparseml_env.sh"
    ),
]

RATES = """
  - !LearningRateFunctionModifier
      lr_func: cyclic_linear
      init_lr: 0.01
      final_lr: 0.001
      cycle_epochs: 1.0
      start_epoch: 0.0
      end_epoch: 4.0
  - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: 4.0
"""


def recipe(tag: str, *, sparsity: float = 0.75, extra: str = "") -> str:
    return f"""modifiers:{RATES}
  - !{tag}
      params: ['re:blocks.*(attn|mlp).*weight']
      init_sparsity: 0.3
      final_sparsity: {sparsity}
      start_epoch: 0.5
      end_epoch: 3.2
      update_frequency: 0.7
      {extra}
"""


OVIT = "num_grads: 48\n      fisher_block_size: 16\n      damp: 1.0e-6"


def in_sparseml(tmp_path: Path, **told: Any) -> Any:
    """What SparseML itself makes of it."""
    assert ENVIRONMENT is not None
    paths = os.pathsep.join(map(str, (ROOT, HERE, HERE.parent / "manager")))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": paths,
        "NM_DISABLE_ANALYTICS": "1",
        "OMP_NUM_THREADS": "1",
        "TAYLOR_ON": "sparseml",
    }
    command = [str(Path(ENVIRONMENT) / "bin" / "python"), "-W", "ignore", str(HERE / "inside_sparseml.py")]
    done = subprocess.run(
        command, input=json.dumps(told), capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def in_ours(text: str, action: Any = inside_sparseml.trained, **kwargs: Any) -> Any:
    manager = ScheduledModifierManager.from_yaml(text, compat="sparseml")
    return json.loads(json.dumps(action(manager, **kwargs)))


def sparsity(zeros: dict[str, list[int]], model: Any = None) -> float:
    weights = dict((model or inside_sparseml.Network()).named_parameters())
    targets = [name for name in zeros if name.startswith("blocks.")]
    return sum(zeros[name][0] for name in targets) / sum(weights[name].numel() for name in targets)


@pytest.fixture(scope="module", autouse=True)
def _third_party() -> Iterator[None]:
    """!TaylorPruningModifier is a tag here, too."""
    import_module("third_party")
    yield
    del MODIFIERS["TaylorPruningModifier"]


def test_a_ported_pruner_prunes_to_the_recipes_sparsity() -> None:
    """Its own imports decide: the same file runs in SparseML below."""
    rows = in_ours(recipe("TaylorPruningModifier"))["rows"]
    assert sparsity(rows[1][2]) == 0
    assert sparsity(rows[-1][2]) == pytest.approx(0.75, abs=1e-3)


class TestInSparseML:
    pytestmark = sparseml

    @pytest.mark.parametrize("tag", ["GMPruningModifier", "GlobalMagnitudePruningModifier", "TaylorPruningModifier"])
    def test_training_is_the_same_step_by_step(self, tmp_path: Path, tag: str) -> None:
        """A recipe, and a third-party pruner in one source, on both engines: losses, rates and masks of each step."""
        text = recipe(tag)
        theirs = in_sparseml(tmp_path, imports=["third_party"], recipe=text, action="train")
        ours = in_ours(text)
        for step, (mine, other) in enumerate(zip(ours["rows"], theirs["rows"], strict=True)):
            assert mine[0] == pytest.approx(other[0], rel=1e-4), step
            assert mine[1] == pytest.approx(other[1], rel=1e-12), step
            assert mine[2] == other[2], step

    def test_our_pruner_is_one_of_its_modifiers(self, tmp_path: Path) -> None:
        """The same recipe, words and all, in SparseML with our modifier and in our manager: the same masks."""
        text = recipe("OViTPruningModifier", extra=OVIT)
        theirs = in_sparseml(
            tmp_path, imports=["ovit_deploy.integrations.sparseml"], recipe=text, action="train", samples=True
        )
        assert sparsity(theirs["rows"][-1][2]) == pytest.approx(0.75, abs=1e-3)
        ours = in_ours(text, grad_sampler=inside_sparseml.sampler())
        for step, (mine, other) in enumerate(zip(ours["rows"], theirs["rows"], strict=True)):
            assert mine[0] == pytest.approx(other[0], rel=1e-3), step
            assert mine[2] == other[2], step

    def test_one_shot(self, tmp_path: Path) -> None:
        text = recipe("OViTPruningModifier", extra=OVIT)
        told = {"imports": ["ovit_deploy.integrations.sparseml"], "recipe": text, "action": "one_shot", "samples": True}
        theirs = in_sparseml(tmp_path, **told)
        ours = in_ours(text, inside_sparseml.one_shot, grad_sampler=inside_sparseml.sampler())
        assert sparsity(theirs["zeros"]) == pytest.approx(0.75, abs=1e-3)
        assert theirs["zeros"] == ours["zeros"]
        assert theirs["norms"] == pytest.approx(ours["norms"], rel=1e-5)
