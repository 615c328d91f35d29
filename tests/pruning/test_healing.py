from itertools import pairwise

import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_convnet, tiny_vit

from ovit_deploy.pruning import GlobalMagnitude, apply
from ovit_deploy.pruning.healing import heal, refit


@pytest.mark.parametrize("groups", [1, 3])
def test_refitting_is_least_squares_on_the_kept_weights(groups) -> None:
    draw = torch.Generator().manual_seed(0)
    w_GOI, v_GOI = torch.randn(2, groups, 5, 12, generator=draw, dtype=torch.float64)
    x_GTI = torch.randn(groups, 80, 12, generator=draw, dtype=torch.float64)
    kept_GOI = torch.rand(groups, 5, 12, generator=draw) > 0.5
    kept_GOI[0, 0] = False  # a row with nothing left
    fitted_GOI = refit(w_GOI, v_GOI, kept_GOI, x_GTI.mT @ x_GTI / 80)
    for group in range(groups):
        for row in range(5):
            kept = kept_GOI[group, row]
            expected = torch.zeros(12, dtype=torch.float64)
            expected[kept] = torch.linalg.lstsq(x_GTI[group][:, kept], x_GTI[group] @ w_GOI[group, row]).solution
            assert torch.allclose(fitted_GOI[group, row], expected, atol=1e-8)


def test_the_error_never_rises_with_more_iterations() -> None:
    draw = torch.Generator().manual_seed(1)
    w_GOI, v_GOI = torch.randn(2, 1, 8, 30, generator=draw, dtype=torch.float64)
    x_TI = torch.randn(200, 30, generator=draw, dtype=torch.float64) * torch.logspace(0, 3, 30)
    kept_GOI = torch.rand(1, 8, 30, generator=draw) > 0.6
    hessian_GII = (x_TI.mT @ x_TI / 200)[None]

    def error(iterations: int) -> float:
        change = refit(w_GOI, v_GOI, kept_GOI, hessian_GII, iterations) - w_GOI
        return float(((change @ hessian_GII) * change).sum())

    errors = [error(iterations) for iterations in (0, 1, 2, 5, 10, 50)]
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in pairwise(errors))


@pytest.mark.parametrize("make", [tiny_vit, tiny_convnet])
def test_healing_brings_outputs_back_and_keeps_zeros(make) -> None:
    model = make()
    names = [name for name, p in model.named_parameters() if p.ndim > 1 and name.endswith(".weight")]
    pruned = GlobalMagnitude().prune(model, full_masks(model, names), sparsity=0.6)
    before = {name: model.get_parameter(name).detach().clone() for name in names}
    apply(model, pruned)
    found = {name: model.get_parameter(name).detach().clone() for name in names}
    healed = heal(model, before, pruned.masks, calibration=tiny_calibration())
    for name in names:
        assert torch.equal(model.get_parameter(name), found[name]), "the model is left as it was"
        assert (healed.weights[name][~pruned.masks[name]] == 0).all()
        assert healed.errors_after[name] <= healed.errors_before[name] * (1 + 1e-6)
    lowered = [healed.errors_after[name] / healed.errors_before[name] for name in names if healed.errors_before[name]]
    assert sum(lowered) / len(lowered) < 0.7
