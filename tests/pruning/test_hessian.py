import oracles
import pytest
import torch
from cases import full_masks, images_and_labels, tiny_calibration, tiny_convnet, tiny_vit
from torch import nn

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import hessian
from ovit_deploy.pruning.hessian import damped, images_for, input_hessians, input_norms


def images_of(calibration=None, num_samples=40):
    return images_for("Test", calibration or tiny_calibration(), num_samples)


def hessians_of(model, names, images=None, memory_budget=2**26, report=lambda text: None):
    return dict(
        input_hessians(model, names, images or images_of(), memory_budget=memory_budget, copies=4, report=report)
    )


def recorded_inputs(model, path, num_samples=40):
    """What a layer gets to see in a plain forward."""
    inputs = []
    with torch.no_grad():
        handle = model.get_submodule(path).register_forward_hook(lambda layer, args, output: inputs.append(args[0]))
        model.eval()(images_and_labels(num_samples)[0])
        handle.remove()
    return inputs


@pytest.mark.parametrize("path", ["blocks.0.attn.qkv", "blocks.1.mlp.fc2"])
def test_linear_inputs_give_their_second_moments(path):
    model = tiny_vit()
    found = hessians_of(model, [f"{path}.weight"])[f"{path}.weight"]
    expected = oracles.input_hessian(model.get_submodule(path), recorded_inputs(model, path))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected[None], rtol=1e-5, atol=1e-6)


def test_convolution_inputs_are_patches(monkeypatch):
    monkeypatch.setattr(hessian, "PATCH_BYTES", 4 * 64 * 27 * 3)  # three samples at a time
    model = tiny_convnet()
    found = hessians_of(model, ["stem.weight"])["stem.weight"]
    expected = oracles.input_hessian(model.stem, recorded_inputs(model, "stem"))
    torch.testing.assert_close(found, expected[None], rtol=1e-5, atol=1e-6)


def test_groups_of_a_convolution_have_hessians_of_their_own():
    model = tiny_convnet()
    found = hessians_of(model, ["grouped.weight"])["grouped.weight"]
    inputs = recorded_inputs(model, "grouped")[0]
    for group, part in enumerate(inputs.chunk(2, dim=1)):
        torch.testing.assert_close(found[group], oracles.input_hessian(model.grouped, [part]), rtol=1e-5, atol=1e-6)


def test_norms_are_the_diagonal():
    model = tiny_convnet()
    names = ["stem.weight", "depthwise.weight", "head.weight"]
    hessians = hessians_of(model, names)
    for name, norm_GI in input_norms(model, names, images_of()).items():
        torch.testing.assert_close(norm_GI.square(), hessians[name].diagonal(dim1=1, dim2=2))


def test_a_small_budget_takes_several_passes_to_the_same_answer():
    model, lines = tiny_vit(), []
    names = list(full_masks(model))
    whole = hessians_of(model, names)
    parts = hessians_of(model, names, memory_budget=5 * 8 * 128**2, report=lines.append)
    assert len(lines) > 2 and "pass 1 of" in lines[0]
    assert list(parts) == names
    assert all(torch.equal(parts[name], whole[name]) for name in names)


def test_a_budget_below_one_layer_is_an_error():
    model = tiny_vit()
    with pytest.raises(PruningError, match=r"do not hold the input Hessian of blocks\.0\.mlp\.fc2\.weight"):
        hessians_of(model, list(full_masks(model)), memory_budget=10_000)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.idle = nn.Linear(48, 48), nn.Linear(4, 4)

    def forward(self, images):
        return self.shared(self.shared(images.reshape(len(images), -1, 48)))


def test_a_layer_that_runs_twice_counts_both_runs():
    torch.manual_seed(0)
    model = Twice()
    expected = oracles.input_hessian(model.shared, recorded_inputs(model, "shared"))
    torch.testing.assert_close(
        hessians_of(model, ["shared.weight"])["shared.weight"][0], expected, rtol=1e-5, atol=1e-6
    )


def test_a_layer_that_does_not_run_is_an_error():
    with pytest.raises(PruningError, match=r"the layer of idle\.weight did not run"):
        hessians_of(Twice(), ["idle.weight"])


def test_inputs_that_are_not_finite_are_an_error():
    model = tiny_vit()
    with torch.no_grad():
        model.blocks[0].norm1.weight[0] = torch.inf
    with pytest.raises(PruningError, match=r"inputs of blocks\.0\.attn\.qkv\.weight are not finite"):
        hessians_of(model, ["blocks.0.attn.qkv.weight"])


def test_the_model_is_left_as_it_was_found():
    model = tiny_convnet().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hessians_of(model, ["stem.weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_only_the_wanted_samples_are_seen():
    model = tiny_vit()
    name = "blocks.0.attn.qkv.weight"
    some = hessians_of(model, [name], images_of(num_samples=20))[name]
    alone = hessians_of(model, [name], images_of(tiny_calibration(20), 20))[name]
    torch.testing.assert_close(some, alone)


def test_too_few_samples_are_an_error():
    with pytest.raises(PruningError, match="41 samples are wanted, but calibration has only 40"):
        images_of(num_samples=41)


def test_dead_inputs_cost_next_to_nothing_and_touch_no_others():
    hessian_GII = torch.tensor([[[2.0, 1.0, 0.0], [1.0, 4.0, 0.0], [0.0, 0.0, 0.0]], [[0.0] * 3] * 3]).double()
    found = damped(hessian_GII, 0.01)
    torch.testing.assert_close(found[0, :2, :2], torch.tensor([[2.03, 1.0], [1.0, 4.03]]).double())
    assert found[0, 2].tolist() == [0, 0, pytest.approx(3e-12)]
    torch.linalg.cholesky(found)
