"""Every method under every pattern: groups of N:M and blocks of several rows, by all curvatures."""

import oracles
import pytest
import torch
from cases import fisher_problem, full_masks, tiny_calibration, tiny_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import triangle
from ovit_deploy.pruning import (
    MFAC,
    OBC,
    FastOViT,
    GlobalMagnitude,
    GradientWeight,
    OViT,
    SparseGPT,
    UniformMagnitude,
    Wanda,
    WoodFisher,
    apply,
)
from ovit_deploy.pruning.column_sweep import errors, inverse_factor
from ovit_deploy.pruning.fisher import Span, fishers
from ovit_deploy.pruning.ovit import Greedy
from ovit_deploy.pruning.patterns import parse_pattern
from ovit_deploy.pruning.tiles import from_tiles, positions, to_tiles
from ovit_deploy.pruning.woodfisher import JudgedOnce

NAMES = ["blocks.0.attn.proj.weight", "blocks.1.attn.proj.weight"]
FISHER = {"num_grads": 16, "memory_budget": 2**28}
METHODS = {
    "OViT": lambda pattern: OViT(block_size=32, damping=1e-4, pattern=pattern, **FISHER),
    "WoodFisher": lambda pattern: WoodFisher(block_size=32, damping=1e-4, pattern=pattern, **FISHER),
    "MFAC": lambda pattern: MFAC(block_size=64, damping=1e-4, pattern=pattern, **FISHER),
    "GradientWeight": lambda pattern: GradientWeight(pattern=pattern, **FISHER),
    "FastOViT": lambda pattern: FastOViT(block_size=32, num_grads=16, columns=8, pattern=pattern),
    "SparseGPT": lambda pattern: SparseGPT(num_samples=16, columns=8, pattern=pattern),
    "OBC": lambda pattern: OBC(num_samples=16, pattern=pattern),
    "Wanda": lambda pattern: Wanda(num_samples=16, pattern=pattern),
    "GlobalMagnitude": GlobalMagnitude,
    "UniformMagnitude": UniformMagnitude,
}
WHOLE = {"block4": (1, 4), "2x4": (2, 4), "4x1": (4, 1), "-1x1": (32, 1), "1x-1": (1, 32), "8x-1": (8, 32)}
CASES = [(name, pattern) for name in METHODS for pattern in WHOLE if not (name == "OBC" and WHOLE[pattern][0] > 1)]


def zeros_of_blocks(mask, tile):
    rows, columns = tile
    outputs, inputs = mask.shape
    return (~mask).reshape(outputs // rows, rows, inputs // columns, columns).sum(dim=(1, 3))


def prune(name, pattern, model, masks, sparsity):
    return METHODS[name](pattern).prune(model, masks, sparsity=sparsity, calibration=tiny_calibration(16))


@pytest.mark.parametrize(("name", "pattern"), CASES)
def test_blocks_go_whole_to_an_exact_number_and_stay_gone(name, pattern):
    model, tile = tiny_vit(), WHOLE[pattern]
    unit = tile[0] * tile[1]
    masks = full_masks(model, NAMES)
    for sparsity in (0.3, 0.6):
        pruned = prune(name, pattern, model, masks, sparsity)
        gone = 0
        for target in NAMES:
            zeros_PQ = zeros_of_blocks(pruned.masks[target], tile)
            assert ((zeros_PQ == 0) | (zeros_PQ == unit)).all()
            assert (masks[target] >= pruned.masks[target]).all()
            assert (pruned.weights[target][~pruned.masks[target]] == 0).all()
            gone += int(zeros_PQ.sum())
        assert gone == round(sparsity * 2 * 1024 / unit) * unit
        apply(model, pruned)
        masks = pruned.masks


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 8)])
def test_n_of_m_are_kept_in_every_group_by_every_method(name, kept, group):
    model = tiny_vit()
    pruned = prune(name, f"{kept}:{group}", model, full_masks(model, NAMES), 1 - kept / group)
    for target, mask in pruned.masks.items():
        assert (mask.reshape(-1, group).sum(dim=1) == kept).all()
        assert (pruned.weights[target][~mask] == 0).all()


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), high=st.integers(1, 3), wide=st.integers(1, 3), at=st.data())
def test_tiles_hold_their_numbers_side_by_side(rows, columns, high, wide, at):
    weight = torch.arange(rows * high * columns * wide).reshape(rows * high, columns * wide)
    flat = to_tiles(weight, (rows, columns))
    naive = [
        weight[p * rows + r, q * columns + c]
        for p in range(high)
        for q in range(wide)
        for r in range(rows)
        for c in range(columns)
    ]
    assert flat.tolist() == naive
    assert torch.equal(from_tiles(flat, weight.shape, (rows, columns)), weight)
    start = at.draw(st.integers(0, len(flat)))
    stop = at.draw(st.integers(start, len(flat)))
    assert torch.equal(positions(start, stop, weight.shape[1], (rows, columns)), flat[start:stop])


@pytest.mark.parametrize("work_bytes", [1, 2**20])
def test_fisher_blocks_of_tiles_are_those_of_the_weights_in_their_order(work_bytes):
    model, calibration, tile = tiny_vit().double(), tiny_calibration(6, 4, torch.float64), (4, 2)
    name = "blocks.0.mlp.fc1.weight"
    masks = full_masks(model, [name])
    masks[name][3, :5] = False
    span = Span(name, 5, 40, 16, tile)
    found = fishers(model, [span], masks, calibration, num_grads=6, damping=0.1, work_bytes=work_bytes)
    images, labels = (torch.cat(part) for part in zip(*calibration.batches(), strict=True))
    expected_KBB = torch.zeros(len(span), 16, 16, dtype=torch.float64)
    for image, label in zip(images, labels, strict=True):
        gradient = oracles.sample_gradient(model.eval(), name, image, label) * masks[name]
        gradient_KB = to_tiles(gradient, tile).reshape(-1, 16)[5:40]
        expected_KBB += gradient_KB[:, :, None] * gradient_KB[:, None, :] / 6
    expected_KBB += 0.1 * torch.eye(16, dtype=torch.float64)
    torch.testing.assert_close(triangle.whole(found.blocks[span], 16), expected_KBB)


def test_cutting_a_span_and_putting_it_back_changes_nothing_else():
    span, weight = Span("w", 1, 3, 8, (2, 4)), torch.arange(64.0).reshape(8, 8)
    part_KB = span.cut(weight)
    assert part_KB[0].tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    other = torch.zeros(8, 8)
    span.put(other, part_KB)
    assert other.nonzero().tolist() == [
        [row, column] for row in range(4) for column in range(4 * (row < 2), 4 + 4 * (row < 2))
    ]
    assert torch.equal(span.cut(other), part_KB)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), group=st.sampled_from([1, 2, 3]), count=st.integers(1, 3))
def test_a_greedy_group_update_is_the_closed_form(seed, group, count):
    w_KB, fisher_KBB = fisher_problem(2, 4 * group, seed)
    active_KB = torch.ones_like(w_KB, dtype=torch.bool)
    scheme = Greedy(parse_pattern("unstructured" if group == 1 else f"block{group}"))
    curve, _ = scheme.order(w_KB, fisher_KBB, active_KB)
    kept_KB = (curve.rank_KB > count).repeat_interleave(group, dim=1)
    u_KB = scheme.update(w_KB, fisher_KBB, active_KB, kept_KB)
    for block in range(2):
        gone = (~kept_KB[block]).nonzero().flatten().tolist()
        expected = oracles.best_rest(w_KB[block], fisher_KBB[block], gone)
        torch.testing.assert_close(u_KB[block], expected, rtol=1e-8, atol=1e-10)
        losses = curve.marginal_KB[block][curve.rank_KB[block] <= count]
        assert float(losses.sum()) == pytest.approx(oracles.joint_loss(w_KB[block], fisher_KBB[block], gone))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), group=st.sampled_from([1, 2, 3]), count=st.integers(0, 3))
def test_a_group_that_is_judged_once_costs_what_it_costs_alone(seed, group, count):
    w_KB, fisher_KBB = fisher_problem(1, 4 * group, seed)
    w_B, finv_BB = w_KB[0], torch.linalg.inv(fisher_KBB[0])
    active_KB = torch.ones_like(w_KB, dtype=torch.bool)
    scheme = JudgedOnce(parse_pattern("unstructured" if group == 1 else f"block{group}"))
    curve, _ = scheme.order(w_KB, fisher_KBB, active_KB)
    groups = [list(range(g * group, (g + 1) * group)) for g in range(4)]
    costs = [oracles.joint_loss(w_B, fisher_KBB[0], members) for members in groups]
    torch.testing.assert_close(curve.marginal_KB[0], torch.tensor(costs, dtype=torch.float64))
    assert curve.rank_KB[0].tolist() == [1 + sorted(costs).index(cost) for cost in costs]
    kept_KB = (curve.rank_KB > count).repeat_interleave(group, dim=1)
    expected_B = w_B.clone()
    for members in (members for members in groups if not kept_KB[0, members[0]]):
        expected_B -= finv_BB[:, members] @ torch.linalg.solve(finv_BB[members][:, members], w_B[members])
    expected_B[~kept_KB[0]] = 0
    found_KB = scheme.update(w_KB, fisher_KBB, active_KB, kept_KB)
    torch.testing.assert_close(found_KB[0], expected_B, rtol=1e-8, atol=1e-10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([1, 2, 4]))
def test_columns_that_go_together_cost_what_they_cost_among_those_to_come(seed, size):
    w_OI, hessian_GII = fisher_problem(3, 8, seed)[0], fisher_problem(1, 8, seed + 1)[1]
    factor_GII, _ = inverse_factor(hessian_GII)
    found = errors(w_OI[None], factor_GII, size)[0].square().unflatten(1, (-1, size)).sum(dim=2) / 2
    for row in range(3):
        for run in range(8 // size):
            rest = slice(run * size, 8)
            expected = oracles.joint_loss(w_OI[row, rest], hessian_GII[0, rest, rest], list(range(size)))
            assert float(found[row, run]) == pytest.approx(expected)


def test_rows_score_as_output_neurons():
    model = tiny_vit().double()
    masks = full_masks(model, NAMES[:1])
    method = OViT(block_size=32, damping=1e-3, pattern="1x-1", **FISHER)
    pruned = method.prune(model, masks, sparsity=0.5, calibration=tiny_calibration(16, dtype=torch.float64))
    images, labels = (
        torch.cat(part) for part in zip(*tiny_calibration(16, dtype=torch.float64).batches(), strict=True)
    )
    fisher_KBB = oracles.fisher_blocks(
        model.eval(), NAMES[0], masks[NAMES[0]], images, labels, block_size=32, damping=1e-3
    )
    w_KB = model.get_parameter(NAMES[0]).detach()
    scores = torch.tensor([oracles.joint_loss(w_KB[row], fisher_KBB[row], list(range(32))) for row in range(32)])
    expected = scores.argsort(stable=True)[:16].sort().values
    assert (~pruned.masks[NAMES[0]][:, 0]).nonzero().flatten().tolist() == expected.tolist()


def test_all_of_a_dimension_needs_targets_of_one_shape():
    model = tiny_vit()
    masks = full_masks(model, ["blocks.0.attn.proj.weight", "blocks.0.mlp.fc1.weight"])
    with pytest.raises(PruningError, match=r"-1x1 means blocks of 32 by 1 in .*proj.weight, but of 128 by 1 in .*fc1"):
        prune("OViT", "-1x1", model, masks, 0.5)


def test_a_whole_dimension_that_memory_does_not_hold_is_refused():
    model = tiny_vit()
    method = OViT(block_size=32, num_grads=16, memory_budget=2**20, pattern="8x-1")
    with pytest.raises(PruningError, match="too few to work on a Fisher block of 256 weights"):
        method.prune(model, full_masks(model, NAMES), sparsity=0.5, calibration=tiny_calibration(16))


def test_outputs_that_do_not_form_blocks_are_refused_by_name():
    model = tiny_vit()
    with pytest.raises(PruningError, match=r"head\.weight has 10 outputs, which do not form groups of 4"):
        GlobalMagnitude("4x1").prune(model, full_masks(model, ["head.weight"]), sparsity=0.5)


def test_blocks_of_several_rows_are_not_for_obc():
    with pytest.raises(PruningError, match="OBC prunes every row by itself"):
        OBC(pattern="2x2")


@pytest.mark.parametrize("text", ["-1x-1", "1x1", "0x4", "4x0", "x4", "-2x4", "block-1x"])
def test_blocks_that_are_none_are_errors(text):
    with pytest.raises(PruningError, match="unknown pattern"):
        parse_pattern(text)
