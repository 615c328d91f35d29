import dataclasses

import pytest
import torch

from ovit_deploy.bench.pruner import compare, measure_pruner, plain, random_blocks
from ovit_deploy.bench.suite import PrunerSuite
from ovit_deploy.errors import PruningError


def test_both_forms_are_timed_and_agree() -> None:
    found = measure_pruner(PrunerSuite(kind="pruner", blocks=6, block_size=16, repeats=3, plain_repeats=2))
    assert [len(row.runs_s) for row in found.rows] == [2, 3]
    assert found.summary.factor == pytest.approx(found.rows[0].median_s / found.rows[1].median_s)
    assert found.summary.same_order > 0.99


def test_random_blocks_are_symmetric_and_positive_definite() -> None:
    _, finv_KBB, _ = random_blocks(3, 24, seed=0)
    torch.testing.assert_close(finv_KBB, finv_KBB.mT)
    assert torch.linalg.eigvalsh(finv_KBB).min() > 0


def test_another_order_is_an_error() -> None:
    found = plain(*random_blocks(2, 16, seed=0))
    other = dataclasses.replace(found, rank_KB=found.rank_KB.flip(1))
    with pytest.raises(PruningError, match="the kernel disagrees with batched torch"):
        compare(found, other)
