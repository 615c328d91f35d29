"""Symmetric matrices held by half, against the matrices themselves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.kernels import triangle

SIZES = st.integers(1, 50)


def symmetric(count, size, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    half_KBB = torch.randn(count, size, size, generator=draw, dtype=dtype)
    return half_KBB + half_KBB.mT


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 3), size=SIZES)
def test_a_matrix_comes_back_as_it_was(count, size):
    matrix_KBB = symmetric(count, size)
    held_KH = triangle.folded(matrix_KBB)
    assert held_KH.shape == (count, triangle.num_held(size))
    assert torch.equal(triangle.whole(held_KH, size), matrix_KBB)
    assert torch.equal(triangle.whole_by_rows(held_KH, size), matrix_KBB)


@pytest.mark.parametrize(("size", "share"), [(192, 0.521), (384, 0.511), (768, 0.506)])
def test_little_more_than_half_is_held(size, share):
    assert triangle.num_held(size) / size**2 == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 5), size=SIZES, num_vectors=st.integers(1, 20), apart=st.booleans())
def test_products_are_added_to_what_is_there(dtype, threads, count, size, num_vectors, apart):
    torch.set_num_threads(threads)  # the fixture sets it back
    before_KBB = symmetric(count, size, dtype=dtype)
    draw = torch.Generator().manual_seed(1)
    if apart:
        vector_KNB = torch.randn(num_vectors, count, size, generator=draw, dtype=dtype).transpose(0, 1)
    else:
        vector_KNB = torch.randn(count, num_vectors, size, generator=draw, dtype=dtype)
    expected = before_KBB.double() + 0.3 * torch.einsum("kni,knj->kij", vector_KNB.double(), vector_KNB.double())
    for add_products in (triangle.add_products, triangle.add_products_by_rows):
        held_KH = triangle.folded(before_KBB)
        add_products(held_KH, vector_KNB, 0.3)
        found = triangle.whole(held_KH, size)
        torch.testing.assert_close(found, expected.to(dtype), rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-12)
        torch.testing.assert_close(triangle.folded(found), held_KH)  # nothing behind the last row


def test_products_go_into_a_run_of_matrices_only():
    held_KH = torch.zeros(5, triangle.num_held(10))
    triangle.add_products(held_KH[1:3], torch.ones(2, 4, 10), 0.25)
    assert torch.equal(triangle.whole(held_KH[1:3], 10), torch.ones(2, 10, 10))
    assert not held_KH[[0, 3, 4]].any()


@settings(max_examples=30, deadline=None)
@given(size=SIZES, kept=st.floats(0, 1))
def test_what_is_done_to_the_held_half_is_done_to_the_matrix(size, kept):
    matrix_KBB = symmetric(3, size)
    held_KH = triangle.folded(matrix_KBB)
    torch.testing.assert_close(triangle.squares(held_KH, size), matrix_KBB.square().sum((1, 2)))
    assert torch.equal(triangle.diagonal(held_KH, size), matrix_KBB.diagonal(dim1=1, dim2=2))
    amount_K = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    triangle.add_to_diagonal(held_KH, amount_K, size)
    matrix_KBB += torch.diag_embed(amount_K[:, None].expand(3, size))
    torch.testing.assert_close(triangle.whole(held_KH, size), matrix_KBB)
    active_KB = torch.rand(3, size, generator=torch.Generator().manual_seed(2)) < kept
    triangle.restrict(held_KH, active_KB)
    alive_KBB = active_KB[:, :, None] & active_KB[:, None, :]
    torch.testing.assert_close(triangle.whole(held_KH, size), matrix_KBB * alive_KBB)
