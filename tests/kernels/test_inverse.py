"""Inverses against numpy's in float64, and where matrices are nearly singular against the true ones."""

import numpy as np
import pytest
import torch
from cases import fisher_problem
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.kernels.inverse import inverses


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 50), count=st.integers(1, 4), seed=st.integers(0, 1000), threads=st.sampled_from([1, 2]))
def test_inverses_are_those_of_numpy(size, count, seed, threads):
    torch.set_num_threads(threads)  # the fixture sets it back
    _, matrix_KBB = fisher_problem(count, size, seed)
    before_KBB = matrix_KBB.clone()
    inverse_KBB, failed_K = inverses(matrix_KBB)
    assert not failed_K.any()
    assert torch.equal(matrix_KBB, before_KBB)
    assert torch.equal(inverse_KBB, inverse_KBB.mT)
    torch.testing.assert_close(inverse_KBB, torch.from_numpy(np.linalg.inv(matrix_KBB.numpy())))


@pytest.mark.parametrize("size", [192, 197])
@pytest.mark.parametrize("exponent", [4, 8, 12, 14])
def test_nearly_singular_matrices_are_inverted_as_well_as_by_cholesky_factors(size, exponent):
    draw = torch.Generator().manual_seed(0)
    base_KBB, _ = torch.linalg.qr(torch.randn(4, size, size, generator=draw, dtype=torch.float64))
    value_B = torch.logspace(0, -exponent, size, dtype=torch.float64)  # a condition of 10^exponent
    matrix_KBB, expected_KBB = (base_KBB * values @ base_KBB.mT for values in (value_B, 1 / value_B))
    matrix_KBB = (matrix_KBB + matrix_KBB.mT) / 2
    found_KBB, failed_K = inverses(matrix_KBB)
    assert not failed_K.any()
    by_factors_KBB = torch.cholesky_inverse(torch.linalg.cholesky(matrix_KBB))
    missed, missed_by_factors = ((inverse - expected_KBB).norm() for inverse in (found_KBB, by_factors_KBB))
    assert missed < 1.2 * missed_by_factors
    left, left_by_factors = ((inverse @ matrix_KBB - torch.eye(size)).norm() for inverse in (found_KBB, by_factors_KBB))
    assert left < 10 * left_by_factors


@pytest.mark.parametrize("size", [1, 9, 32])
def test_what_is_not_positive_definite_is_told_of_each_matrix(size):
    _, matrix_KBB = fisher_problem(5, size)
    matrix_KBB[1, -1, -1] = -1.0
    matrix_KBB[2] = 0
    matrix_KBB[4, -1, -1] = torch.nan
    inverse_KBB, failed_K = inverses(matrix_KBB)
    assert failed_K.tolist() == [False, True, True, False, True]
    assert (torch.linalg.cholesky_ex(matrix_KBB)[1] != 0).tolist()[:4] == failed_K.tolist()[:4]
    torch.testing.assert_close(inverse_KBB[[0, 3]], matrix_KBB[[0, 3]].inverse())
