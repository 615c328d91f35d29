import oracles
import pytest
import torch
from cases import fisher_problem, full_masks, images_and_labels, tiny_calibration, tiny_convnet, tiny_vit
from hypothesis import given
from hypothesis import strategies as st

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import triangle
from ovit_deploy.pruning.fisher import Span, block_size_for, compensate, fishers, invert, predicted_loss
from ovit_deploy.pruning.samples import take

DAMPING = 1e-4


def random_mask(model, name, kept=0.7):
    draw = torch.Generator().manual_seed(3)
    return torch.rand(model.get_parameter(name).shape, generator=draw) < kept


@given(size=st.integers(1, 5000), requested=st.integers(1, 6000))
def test_blocks_are_the_smallest_divisor_not_below_the_request(size, requested):
    block = block_size_for(size, requested)
    assert size % block == 0
    assert block >= min(size, requested)
    assert not any(size % smaller == 0 for smaller in range(min(size, requested), block))


@pytest.mark.parametrize("work_bytes", [1, 100_000, 10**9])
@pytest.mark.parametrize(
    ("build", "name", "block"),
    [
        (tiny_vit, "blocks.1.attn.qkv.weight", 16),
        (tiny_vit, "blocks.0.mlp.fc1.weight", 64),
        (tiny_vit, "patch_embed.proj.weight", 64),
        (tiny_convnet, "grouped.weight", 27),
        (tiny_convnet, "depthwise.weight", 9),
    ],
)
def test_fisher_is_the_mean_of_outer_products_of_sample_gradients(build, name, block, work_bytes):
    model = build().double().eval()
    mask = random_mask(model, name)
    num_blocks = mask.numel() // block
    spans = [Span(name, 0, num_blocks // 3, block), Span(name, num_blocks // 3, num_blocks, block)]
    found = fishers(
        model,
        spans,
        {name: mask},
        tiny_calibration(23, 9, torch.float64),
        num_grads=20,
        damping=DAMPING,
        work_bytes=work_bytes,
    )
    images, labels = (part[:20] for part in images_and_labels(23, dtype=torch.float64))
    expected = oracles.fisher_blocks(model, name, mask, images, labels, block_size=block, damping=DAMPING)
    held_KH = torch.cat([found.blocks[span] for span in spans])
    torch.testing.assert_close(triangle.whole(held_KH, block), expected)


def test_float32_fishers_are_those_of_float64():
    name = "blocks.0.mlp.fc2.weight"
    masks, span = full_masks(tiny_vit(), [name]), Span(name, 0, 128, 32)
    single, double = (
        fishers(
            tiny_vit().to(dtype),
            [span],
            masks,
            tiny_calibration(8, 8, dtype),
            num_grads=8,
            damping=0.0,
            work_bytes=10**8,
        )
        for dtype in (torch.float32, torch.float64)
    )
    assert single.blocks[span].dtype == torch.float32
    scale = float(double.blocks[span].abs().max())
    torch.testing.assert_close(single.blocks[span].double(), double.blocks[span], rtol=1e-4, atol=1e-5 * scale)
    assert single.mean_loss == pytest.approx(double.mean_loss, rel=1e-5)


def test_the_inverse_is_that_over_the_active_weights():
    _, fisher_KBB = fisher_problem(3, 12)
    active_KB = torch.rand(3, 12, generator=torch.Generator().manual_seed(0)) < 0.6
    finv_KBB, jitter_K = invert(fisher_KBB, active_KB)
    assert (jitter_K == 0).all()
    for b in range(3):
        at = active_KB[b].nonzero().flatten()
        torch.testing.assert_close(finv_KBB[b][at[:, None], at], fisher_KBB[b][at[:, None], at].inverse())


def test_jitter_goes_only_to_blocks_that_need_it_and_is_reported():
    _, fisher_KBB = fisher_problem(3, 8)
    fisher_KBB[1] = torch.ones(8, 8)
    finv_KBB, jitter_K = invert(fisher_KBB, torch.ones(3, 8, dtype=torch.bool))
    assert jitter_K[1] > 0 and jitter_K[0] == jitter_K[2] == 0
    torch.testing.assert_close(finv_KBB[0], fisher_KBB[0].inverse())
    repaired = fisher_KBB[1] + jitter_K[1] * torch.eye(8)
    torch.testing.assert_close(finv_KBB[1] @ repaired, torch.eye(8, dtype=torch.float64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("value", [0.0, torch.nan, -1.0])
def test_a_block_that_cannot_be_inverted_is_an_error(value):
    with pytest.raises(PruningError, match="cannot be inverted"):
        invert(value * torch.eye(4).expand(2, 4, 4), torch.ones(2, 4, dtype=torch.bool))


def test_compensation_gives_the_best_rest():
    w_KB, fisher_KBB = fisher_problem(4, 15)
    kept_KB = torch.rand(4, 15, generator=torch.Generator().manual_seed(0)) < 0.5
    u_KB = compensate(w_KB, fisher_KBB, kept_KB)
    for b in range(4):
        gone = (~kept_KB[b]).nonzero().flatten().tolist()
        torch.testing.assert_close(u_KB[b], oracles.best_rest(w_KB[b], fisher_KBB[b], gone))
    expected = sum(
        oracles.joint_loss(w_KB[b], fisher_KBB[b], (~kept_KB[b]).nonzero().flatten().tolist()) for b in range(4)
    )
    assert predicted_loss(u_KB - w_KB, fisher_KBB) == pytest.approx(expected)


def test_compensation_leaves_a_block_alone_that_loses_nothing():
    w_KB, fisher_KBB = fisher_problem(2, 6)
    assert torch.equal(compensate(w_KB, fisher_KBB, torch.ones(2, 6, dtype=torch.bool)), w_KB)


def test_taking_cuts_the_last_batch():
    batches = list(take(tiny_calibration(40, 16).batches(), 35))
    assert [len(labels) for _, labels in batches] == [16, 16, 3]


def test_too_few_samples_are_an_error_that_names_both_numbers():
    with pytest.raises(PruningError, match="41 gradients are wanted, but calibration has only 40"):
        list(take(tiny_calibration(40, 16).batches(), 41))
