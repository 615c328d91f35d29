import oracles
import pytest
import torch
from cases import fisher_problem, full_masks, tiny_calibration, tiny_vit

from ovit_deploy.pruning import SparseGPT, UniformMagnitude, Wanda
from ovit_deploy.pruning.column_sweep import inverse_factor, prune_columns
from ovit_deploy.pruning.hessian import images_for, input_hessians, output_error
from ovit_deploy.pruning.patterns import UNSTRUCTURED, parse_pattern

NAME = "blocks.0.mlp.fc2.weight"
TINY = SparseGPT(num_samples=40, memory_budget=2**26)


def problem(num_rows, num_columns):
    """Rows of weights with the Hessian that they share."""
    w_OI, _ = fisher_problem(num_rows, num_columns)
    _, hessian_GII = fisher_problem(1, num_columns, seed=1)
    return w_OI[None], hessian_GII


def everything(w_GOI):
    return torch.ones_like(w_GOI, dtype=torch.bool)


def swept(w_I, hessian_II, kept_I):
    """One row, with the mask given."""
    w_I = w_I.clone()
    for j in (~kept_I).nonzero().flatten().tolist():
        oracles.remove_and_compensate_right(w_I, hessian_II, j)
    return w_I


def test_the_factor_is_that_of_the_inverse():
    _, hessian_GII = fisher_problem(3, 20)
    factor_GII, jitter = inverse_factor(hessian_GII)
    expected = torch.linalg.cholesky(torch.linalg.inv(hessian_GII), upper=True)
    torch.testing.assert_close(factor_GII, expected)
    assert jitter == 0


def test_the_sweep_is_the_loop_of_the_paper():
    w_GOI, hessian_GII = problem(6, 24)
    found = prune_columns(w_GOI, everything(w_GOI), hessian_GII, 6 * 24 // 2, columns=8, pattern=UNSTRUCTURED)
    weights_OI, kept_OI = oracles.sparsegpt(w_GOI[0], hessian_GII[0], run=8, gone_per_run=24)
    assert torch.equal(found.kept_GOI[0], kept_OI)
    torch.testing.assert_close(found.weights_GOI[0], weights_OI)


@pytest.mark.parametrize("columns", [4, 10, 128])
def test_the_sweep_with_a_pattern_is_the_loop_of_the_paper(columns):
    w_GOI, hessian_GII = problem(6, 24)
    found = prune_columns(w_GOI, everything(w_GOI), hessian_GII, 72, columns=columns, pattern=parse_pattern("2:4"))
    weights_OI, kept_OI = oracles.sparsegpt(w_GOI[0], hessian_GII[0], run=4, pattern=(2, 4))
    assert torch.equal(found.kept_GOI[0], kept_OI)
    torch.testing.assert_close(found.weights_GOI[0], weights_OI)


def test_its_loss_is_the_quadratic_form_of_the_change():
    w_GOI, hessian_GII = problem(6, 24)
    found = prune_columns(w_GOI, everything(w_GOI), hessian_GII, 61, columns=8, pattern=UNSTRUCTURED)
    change_OI = found.weights_GOI[0] - w_GOI[0]
    assert found.loss == pytest.approx(torch.einsum("oi,ij,oj->", change_OI, hessian_GII[0], change_OI).item() / 2)


def test_groups_are_swept_side_by_side():
    w_OI, hessian_GII = fisher_problem(2, 12)
    w_GOI = w_OI[:, None]
    both = prune_columns(w_GOI, everything(w_GOI), hessian_GII, 12, columns=1, pattern=UNSTRUCTURED)
    for g in range(2):
        torch.testing.assert_close(both.weights_GOI[g, 0], swept(w_OI[g], hessian_GII[g], both.kept_GOI[g, 0]))


def test_earlier_zeros_are_removed_again_as_they_are_met():
    w_GOI, hessian_GII = problem(1, 8)
    earlier_GOI = everything(w_GOI)
    earlier_GOI[0, 0, [3, 6]] = False
    w_GOI = w_GOI * earlier_GOI
    found = prune_columns(w_GOI, earlier_GOI, hessian_GII, 4, columns=8, pattern=UNSTRUCTURED)
    assert (found.kept_GOI <= earlier_GOI).all()
    assert int(found.kept_GOI.sum()) == 4
    torch.testing.assert_close(found.weights_GOI[0, 0], swept(w_GOI[0, 0], hessian_GII[0], found.kept_GOI[0, 0]))


def test_outputs_change_less_than_by_wanda_and_by_magnitude():
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model, [NAME])
    images = images_for("Test", calibration, 40)
    ((_, hessian_GII),) = input_hessians(model, [NAME], images, memory_budget=2**26, copies=4, report=print)
    weight = model.get_parameter(NAME).detach()[None]
    errors = []
    for method in (TINY, Wanda(num_samples=40), UniformMagnitude()):
        pruned = method.prune(model, masks, sparsity=0.6, calibration=calibration)
        errors.append(output_error(pruned.weights[NAME][None] - weight, weight, hessian_GII))
        if method is TINY:
            assert pruned.details["output_error"][NAME] == pytest.approx(errors[0], rel=1e-4)
    assert errors[0] < 0.5 * min(errors[1:])


def test_weights_of_dead_inputs_go_first_and_touch_no_others():
    model = tiny_vit()
    with torch.no_grad():
        for parameter in (model.blocks[0].norm1.weight, model.blocks[0].norm1.bias):
            parameter[[1, 30]] = 0
    name = "blocks.0.attn.qkv.weight"
    pruned = TINY.prune(model, full_masks(model, [name]), sparsity=1 / 16, calibration=tiny_calibration())
    assert not pruned.masks[name][:, [1, 30]].any()
    assert torch.equal(pruned.weights[name][pruned.masks[name]], model.get_parameter(name)[pruned.masks[name]])
