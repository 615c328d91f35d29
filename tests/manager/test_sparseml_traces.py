"""Masks, sparsities, learning rates and weight decay of each step, against SparseML 1.8.0's own (``golden/``)."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from network import trace

from ovit_deploy.errors import RecipeError
from ovit_deploy.manager import ScheduledModifierManager

GOLDEN = Path(__file__).parent / "golden"
RECIPES: dict[str, str] = json.loads((GOLDEN / "recipes.json").read_text())
TRACES: dict[str, list[list]] = json.loads((GOLDEN / "traces.json").read_text())
# Recipes that we refuse instead, each with what the error names; recipes/README.md tells why.
REFUSED = {
    "gmp_leave_enabled_false": "grow back",
    "acdc": "ACDCPruningModifier",
    "layer_prune": "LayerPruningModifier",
}


@pytest.mark.parametrize("name", sorted(TRACES.keys() - REFUSED.keys()))
def test_each_step_is_sparsemls(name: str) -> None:
    rows = trace(ScheduledModifierManager.from_yaml(RECIPES[name], compat="sparseml"), name)
    for ours, theirs in zip(rows, TRACES[name], strict=True):
        assert (ours[0], ours[2:]) == (theirs[0], theirs[2:])  # epoch; decay, sparsity, sha1 of the masks
        assert ours[1] == pytest.approx(theirs[1], rel=1e-12), ours[0]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_equal_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=REFUSED[name]):
        ScheduledModifierManager.from_yaml(RECIPES[name], compat="sparseml")


def test_without_compat_the_dates_are_ours() -> None:
    ours = trace(ScheduledModifierManager.from_yaml(RECIPES["gmp_offgrid_start"]), "gmp")
    changes = [row[0] for before, row in pairwise(ours) if before[3] != row[3]]
    assert changes == [1.25, 2.0, 2.75, 3.5, 3.75]  # 1.3, 2.0, 2.7, 3.4, 3.7 on quarter epochs
