import oracles
import pytest
import torch
from cases import fisher_problem, full_masks, tiny_calibration, tiny_convnet, tiny_vit

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import triangle
from ovit_deploy.pruning import OViT
from ovit_deploy.pruning.fisher import compensate, fishers, predicted_loss
from ovit_deploy.pruning.rounding import channel_scales, round_kept
from ovit_deploy.pruning.streaming import plan
from ovit_deploy.quantization import FakeQuantize
from ovit_deploy.recipe.quantization import TensorScheme


def ovit(**changes):
    return OViT(**({"block_size": 32, "num_grads": 40, "damping": 1e-4, "memory_budget": 2**26} | changes))


def compensated(num_blocks, block_size):
    """Blocks of which different numbers are kept, none and all among them, with one scale a block."""
    w_KB, fisher_KBB = fisher_problem(num_blocks, block_size)
    kept_KB = torch.rand(num_blocks, block_size, generator=torch.Generator().manual_seed(0)) < 0.5
    kept_KB[0], kept_KB[1] = False, True
    return compensate(w_KB, fisher_KBB, kept_KB), fisher_KBB, kept_KB


@pytest.mark.parametrize("highest", [1, 7, 127])
def test_greedy_rounding_is_that_of_the_formula(highest):
    u_KB, fisher_KBB, kept_KB = compensated(12, 10)
    scale_KB = channel_scales(u_KB, highest)
    found_KB = round_kept(u_KB, fisher_KBB, kept_KB, scale_KB, highest)
    for b in range(len(u_KB)):
        kept = kept_KB[b].nonzero().flatten().tolist()
        expected_B = oracles.rounded_greedily(u_KB[b], fisher_KBB[b], kept, scale_KB[b], highest)
        torch.testing.assert_close(found_KB[b], expected_B, rtol=1e-9, atol=1e-12)


def test_what_drifts_beyond_the_range_is_rounded_at_once():
    u_KB, fisher_KBB, kept_KB = compensated(12, 10)
    scale_KB = 0.5 * channel_scales(u_KB, 3)  # half of the range is cut off from the beginning
    found_KB = round_kept(u_KB, fisher_KBB, kept_KB, scale_KB, 3)
    assert (found_KB.abs() <= 3 * scale_KB + 1e-12).all()
    for b in range(len(u_KB)):
        kept = kept_KB[b].nonzero().flatten().tolist()
        expected_B = oracles.rounded_greedily(u_KB[b], fisher_KBB[b], kept, scale_KB[b], 3)
        torch.testing.assert_close(found_KB[b], expected_B, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("highest", [7, 127])
def test_it_loses_less_than_rounding_to_the_nearest(highest):
    u_KB, fisher_KBB, kept_KB = compensated(32, 24)
    scale_KB = channel_scales(u_KB, highest)
    nearest_KB = (u_KB / scale_KB).round() * scale_KB
    found_KB = round_kept(u_KB, fisher_KBB, kept_KB, scale_KB, highest)
    assert predicted_loss(found_KB - u_KB, fisher_KBB) < 0.9 * predicted_loss(nearest_KB - u_KB, fisher_KBB)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block4", "2x4"])
def test_a_model_quantized_afterwards_finds_its_weights_on_the_grid(pattern):
    model, calibration = tiny_vit(), tiny_calibration()
    masks = full_masks(model)
    plain = ovit(pattern=pattern).prune(model, masks, sparsity=0.5, calibration=calibration)
    pruned = ovit(pattern=pattern, weight_bits=4).prune(model, masks, sparsity=0.5, calibration=calibration)
    scheme = TensorScheme(num_bits=4, symmetric=True, strategy="channel", observer="min_max")
    for name, weight in pruned.weights.items():
        assert torch.equal(pruned.masks[name], plain.masks[name])
        assert (weight[~pruned.masks[name]] == 0).all()
        quantizer = FakeQuantize(scheme, num_channels=len(weight), of_weight=True)
        torch.testing.assert_close(quantizer(weight), weight, rtol=1e-5, atol=0)
        assert not torch.equal(quantizer(plain.weights[name]), plain.weights[name])
        torch.testing.assert_close(weight.abs().flatten(1).amax(1), plain.weights[name].abs().flatten(1).amax(1))
    assert pruned.predicted_loss > plain.predicted_loss


def test_the_predicted_loss_is_that_of_the_rounded_weights():
    model, calibration = tiny_convnet().eval(), tiny_calibration()
    name = next(name for name, weight in model.named_parameters() if weight.ndim == 4)
    masks = full_masks(model, [name])
    method = ovit(weight_bits=3)
    pruned = method.prune(model, masks, sparsity=0.5, calibration=calibration)
    spans = plan(method.problem(model, masks, calibration))[0]
    blocks = fishers(model, spans, masks, calibration, num_grads=40, damping=1e-4, work_bytes=2**20).blocks
    change = pruned.weights[name] - model.get_parameter(name).detach()
    expected = sum(
        predicted_loss(span.cut(change), triangle.whole(held_KH, span.block_size)) for span, held_KH in blocks.items()
    )
    assert pruned.predicted_loss == pytest.approx(expected, rel=1e-4)


def test_what_it_does_not_serve_is_refused():
    with pytest.raises(PruningError, match="weight_bits is 16"):
        ovit(weight_bits=16)
    with pytest.raises(PruningError, match="rounds once"):
        ovit(weight_bits=8, num_recomputations=2)
    model = tiny_vit()
    with pytest.raises(PruningError, match="do not fit in the memory budget all at once"):
        ovit(weight_bits=8, memory_budget=600_000).prune(
            model, full_masks(model), sparsity=0.5, calibration=tiny_calibration()
        )
