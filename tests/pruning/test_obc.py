import oracles
import pytest
import torch
from cases import fisher_problem, full_masks, tiny_calibration, tiny_vit

from ovit_deploy.kernels.eliminate.reference import eliminate
from ovit_deploy.pruning import OBC, SparseGPT, obc
from ovit_deploy.pruning.obc import prune_rows
from ovit_deploy.pruning.patterns import UNSTRUCTURED

NAME = "blocks.0.mlp.fc1.weight"


def problem(num_rows, num_columns):
    """Rows of weights with the Hessian that they share."""
    w_OI, _ = fisher_problem(num_rows, num_columns)
    _, hessian_GII = fisher_problem(1, num_columns, seed=1)
    return w_OI[None], hessian_GII


def kept_of(w_GOI):
    return torch.ones_like(w_GOI, dtype=torch.bool)


def gone_of(kept_I):
    return (~kept_I).nonzero().flatten().tolist()


def row_losses(w_OI, hessian_II, kept_OI):
    return sum(oracles.joint_loss(w_I, hessian_II, gone_of(kept_I)) for w_I, kept_I in zip(w_OI, kept_OI, strict=True))


def test_kept_weights_of_each_row_take_their_best_values():
    w_GOI, hessian_GII = problem(5, 10)
    found = prune_rows(w_GOI, kept_of(w_GOI), hessian_GII, 25, pattern=UNSTRUCTURED)
    for w_I, kept_I, u_I in zip(w_GOI[0], found.kept_GOI[0], found.weights_GOI[0], strict=True):
        torch.testing.assert_close(u_I, oracles.best_rest(w_I, hessian_GII[0], gone_of(kept_I)))


def test_one_row_is_close_to_the_best_of_all_sets():
    w_GOI, hessian_GII = problem(1, 10)
    for count in range(1, 10):
        found = prune_rows(w_GOI, kept_of(w_GOI), hessian_GII, count, pattern=UNSTRUCTURED)
        best = oracles.optimal_loss(w_GOI[0, 0], hessian_GII[0], count)
        loss = row_losses(w_GOI[0], hessian_GII[0], found.kept_GOI[0])
        assert best <= loss * (1 + 1e-9) and loss < 2 * best
        if count == 1:
            assert loss == pytest.approx(best)


def test_rows_give_up_the_steps_with_the_smallest_losses():
    w_GOI, hessian_GII = problem(4, 8)
    w_GOI[0, 2] *= 100  # a row that must keep what it has
    found = prune_rows(w_GOI, kept_of(w_GOI), hessian_GII, 16, pattern=UNSTRUCTURED)
    steps = []
    for row, w_I in enumerate(w_GOI[0]):
        curve = eliminate(w_I[None], torch.linalg.inv(hessian_GII), kept_of(w_GOI)[0, :1], torch.tensor([8]))
        order = curve.rank_KB[0].argsort()
        keys = curve.marginal_KB[0, order].cummax(dim=0).values.tolist()
        steps += [(key, row, int(p)) for key, p in zip(keys, order, strict=True)]
    gone = {(row, p) for _, row, p in sorted(steps)[:16]}
    assert {tuple(at) for at in (~found.kept_GOI[0]).nonzero().tolist()} == gone
    assert int((~found.kept_GOI[0, 2]).sum()) < 2


def test_earlier_zeros_are_conditioned_on():
    w_GOI, hessian_GII = problem(3, 8)
    mask = kept_of(w_GOI)
    mask[0, 0, [1, 5]] = mask[0, 2, 7] = False
    w_GOI = w_GOI * mask
    found = prune_rows(w_GOI, mask, hessian_GII, 12, pattern=UNSTRUCTURED)
    assert int((~found.kept_GOI[0]).sum()) == 12
    assert (found.kept_GOI <= mask).all()
    active = mask[0, 0].nonzero().flatten()
    gone = [at for at, p in enumerate(active) if not found.kept_GOI[0, 0, p]]
    best = oracles.best_rest(w_GOI[0, 0, active], hessian_GII[0][active][:, active], gone)
    torch.testing.assert_close(found.weights_GOI[0, 0, active], best)


def test_groups_have_hessians_of_their_own():
    w_OI, hessian_GII = fisher_problem(2, 8)
    both = prune_rows(w_OI[:, None], torch.ones(2, 1, 8, dtype=torch.bool), hessian_GII, 8, pattern=UNSTRUCTURED)
    for g in range(2):
        gone = gone_of(both.kept_GOI[g, 0])
        torch.testing.assert_close(both.weights_GOI[g, 0], oracles.best_rest(w_OI[g], hessian_GII[g], gone))


def test_rows_one_at_a_time_give_what_all_together_give(monkeypatch):
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model, [NAME])
    method = OBC(num_samples=40, memory_budget=2**26)
    together = method.prune(model, masks, sparsity=0.6, calibration=calibration)
    monkeypatch.setattr(obc, "PIECE_BYTES", 1)
    alone = method.prune(model, masks, sparsity=0.6, calibration=calibration)
    assert torch.equal(together.masks[NAME], alone.masks[NAME])
    torch.testing.assert_close(together.weights[NAME], alone.weights[NAME])


def test_outputs_change_less_than_by_sparsegpt():
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model)
    errors = [
        method.prune(model, masks, sparsity=0.6, calibration=calibration).details["output_error"]
        for method in (OBC(num_samples=40), SparseGPT(num_samples=40))
    ]
    assert all(errors[0][name] < errors[1][name] for name in masks)
