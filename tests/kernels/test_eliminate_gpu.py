"""The Triton kernel against the reference: in Triton's interpreter everywhere, on a GPU where there is one.

The interpreter is chosen when triton is imported, so it runs in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import fisher_problem

from ovit_deploy.kernels.eliminate import eliminate

triton = pytest.importorskip("triton", reason="triton is not installed: it comes with torch's CUDA build for Linux")

CASES = [
    # blocks, weights, group, limit, dtype, condition; the interpreter takes its time, so they are tiny
    (2, 1, 1, 1, torch.float64, 1.0),
    (2, 8, 1, 1, torch.float32, 10.0),
    (2, 17, 1, 1, torch.float64, 100.0),
    (2, 12, 3, 1, torch.float64, 100.0),
    (2, 8, 4, 2, torch.float64, 100.0),
]
LARGE = [
    (100, 33, 1, 1, torch.float64, 100.0),
    (1000, 192, 1, 1, torch.float64, 100.0),
    (5, 256, 4, 2, torch.float64, 100.0),
]


def compare(device: str, num_blocks: int, size: int, group: int, limit: int, dtype, condition: float) -> None:
    """Some weights pruned already, whose Fisher is never read, and another number of removals in each block."""
    w_KB, fisher_KBB = fisher_problem(num_blocks, size, seed=size, condition=condition)
    draw = torch.Generator().manual_seed(size)
    active_KB = torch.rand(num_blocks, size, generator=draw) < 0.8
    finv_KBB = fisher_KBB.inverse()
    finv_KBB[~active_KB] = torch.nan
    finv_KBB.mT[~active_KB] = torch.nan
    gone_KG = (~active_KB).unflatten(1, (-1, group)).sum(dim=2)
    most_K = (limit - gone_KG).clamp(min=0).sum(dim=1)
    clean_KBB = finv_KBB.nan_to_num()
    inputs = [tensor.to(device) for tensor in (w_KB.to(dtype), finv_KBB.to(dtype), active_KB)]
    for counts_K in (None, most_K // torch.arange(1, num_blocks + 1)):
        slow = eliminate(w_KB, clean_KBB, active_KB, counts_K, group=group, limit=limit, backend="reference")
        counts = None if counts_K is None else counts_K.to(device)
        fast = eliminate(*inputs, counts, group=group, limit=limit, backend="gpu")
        assert torch.equal(fast.rank_KB.cpu(), slow.rank_KB)
        tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {}
        torch.testing.assert_close(fast.marginal_KB.cpu(), slow.marginal_KB.to(dtype), **tolerance)
        torch.testing.assert_close(fast.weights_KB.cpu(), slow.weights_KB.to(dtype), **tolerance)


def test_the_triton_kernel_is_the_reference_in_the_interpreter() -> None:
    script = "from test_eliminate_gpu import CASES, compare\nfor case in CASES: compare('cpu', *case)\nprint('equal')"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "equal\n"), told.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here: the Triton kernel runs in the interpreter")
@pytest.mark.parametrize("case", [*CASES, *LARGE])
def test_the_triton_kernel_is_the_reference_on_a_gpu(case) -> None:
    compare("cuda", *case)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here: nothing to dispatch")
def test_cuda_tensors_are_eliminated_where_they_are() -> None:
    w_KB, fisher_KBB = (tensor.cuda() for tensor in fisher_problem(3, 32))
    found = eliminate(w_KB, fisher_KBB.inverse(), torch.ones_like(w_KB, dtype=torch.bool))
    assert "ovit_deploy.kernels.eliminate.gpu" in sys.modules and found.rank_KB.is_cuda
