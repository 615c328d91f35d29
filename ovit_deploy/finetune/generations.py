"""The last two checkpoints of a run that goes on: the older is there until the newer is whole and on the disk.

runs/.<name>.partial/resume/
    start.json                        what the run is of: recipe, model, data; see fingerprint.py
    step-00000128.0.safetensors       before step 128
    step-00000128.1.safetensors       the same, after the actions of step 128 (a pruning)
"""

from collections.abc import Callable
from pathlib import Path

from ovit_deploy import checkpoint
from ovit_deploy.errors import RunError
from ovit_deploy.finetune import tree
from ovit_deploy.finetune.tree import Tree

_KEPT = 2


def save(folder: Path, content: Tree, *, step: int, acted: bool) -> Path:
    """Write one more, then remove all but the last two.

    Raises:
        OSError: the disk is full or fails; those that were there are still there.
    """
    path = folder / f"step-{step:08d}.{int(acted)}.safetensors"
    checkpoint.write(path, tree.to_bytes(content))
    for old in _all(folder)[_KEPT:]:
        old.unlink()
    return path


def newest(folder: Path, report: Callable[[str], None]) -> Tree:
    """The content of the newest that is whole; those that are not are told and put aside.

    Raises:
        RunError: none is whole.
    """
    for path in _all(folder):
        try:
            return tree.read(path)
        except RunError as error:
            report(f"{error.message}; going back to the one before it")
            path.rename(path.with_suffix(".torn"))
    raise RunError(f"{folder}: no whole checkpoint", "start the run again, without --resume")


def _all(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("step-*.safetensors"), reverse=True)
