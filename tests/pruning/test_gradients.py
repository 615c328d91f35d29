import oracles
import pytest
import torch
from cases import images_and_labels, tiny_convnet, tiny_vit
from torch import nn
from torch.nn import functional

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning.gradients import check_against_autograd, sample_gradients

VIT = ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight", "head.weight"]
CONVNET = ["stem.weight", "grouped.weight", "depthwise.weight", "head.weight"]
CASES = [(tiny_vit, name) for name in VIT] + [(tiny_convnet, name) for name in CONVNET]


def gradients_of(model, names, images, labels, rows=None):
    found = {}

    def consume(name, gradients):
        size = model.get_parameter(name).shape[0]
        found[name] = gradients.rows(*(rows or (0, size)))

    loss = sample_gradients(model, names, images, labels, consume=consume)
    return found, loss


@pytest.mark.parametrize(("build", "name"), CASES)
def test_gradients_are_those_autograd_gives_sample_by_sample(build, name):
    model = build().double().eval()
    images, labels = images_and_labels(5, dtype=torch.float64)
    found, loss = gradients_of(model, [name], images, labels)
    expected = [oracles.sample_gradient(model, name, *sample).flatten(1) for sample in zip(images, labels, strict=True)]
    torch.testing.assert_close(found[name], torch.stack(expected))
    assert loss == pytest.approx(functional.cross_entropy(model(images), labels, reduction="sum").item())


@pytest.mark.parametrize("rows", [(0, 1), (3, 7), (5, 12), (6, 8), (2, 11)])
def test_rows_may_cut_through_the_groups_of_a_convolution(rows):
    model = tiny_convnet().double().eval()
    images, labels = images_and_labels(3, dtype=torch.float64)
    names = ["grouped.weight", "depthwise.weight"]
    whole, _ = gradients_of(model, names, images, labels)
    part, _ = gradients_of(model, names, images, labels, rows)
    for name in names:
        torch.testing.assert_close(part[name], whole[name][:, slice(*rows)])


def test_the_model_is_left_as_it_was_found():
    model = tiny_convnet()
    model.train()
    model.norm.eval()
    model.head.bias.requires_grad_(False)
    model.stem.weight.grad = torch.ones_like(model.stem.weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, labels = images_and_labels(4)
    with torch.no_grad():
        sample_gradients(model, CONVNET, images, labels, consume=lambda name, gradients: None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training and model.act.training and not model.norm.training
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]
    assert (model.stem.weight.grad == 1).all() and model.head.weight.grad is None
    assert all(not module._forward_hooks for module in model.modules())


def test_the_model_is_left_as_it_was_found_after_an_error():
    model = tiny_vit().train()
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    with pytest.raises(PruningError, match="loss is not finite"):
        sample_gradients(model, VIT, *images_and_labels(4), consume=lambda name, gradients: None)
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(not module._forward_hooks for module in model.modules())


class Infinite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * torch.inf


def test_a_gradient_that_is_not_finite_is_named():
    model = tiny_vit()
    model.norm.register_forward_hook(lambda module, args, output: Infinite.apply(output))
    with pytest.raises(PruningError, match=r"gradient at blocks\.1\.mlp\.fc2\.weight is not finite"):
        sample_gradients(model, VIT[:3], *images_and_labels(2), consume=lambda name, gradients: None)


class Odd(nn.Module):
    """Uses its layers in ways that hooks cannot follow."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.second = nn.Linear(48, 48), nn.Linear(48, 48)
        self.head = nn.Linear(768, 10)

    def forward(self, images):
        x = images.reshape(len(images), 16, 48)
        match self.way:
            case "twice":
                x = self.first(self.first(x))
            case "bypassed":
                x = functional.linear(x, self.first.weight)
            case "both":
                x = self.first(x) + functional.linear(x, self.first.weight)
            case "unused":
                self.first(x)
            case "tokens first":
                x = self.first(x.transpose(0, 1)).transpose(0, 1)
        return self.head(x.flatten(1))


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("twice", "ran 2 times"),
        ("bypassed", "ran 0 times"),
        ("unused", "does not depend"),
        ("both", "disagree with autograd"),
        ("tokens first", "disagree with autograd"),
    ],
)
def test_a_layer_used_in_a_way_hooks_do_not_see_is_refused_by_name(way, says):
    torch.manual_seed(0)
    with pytest.raises(PruningError, match=says) as error:
        check_against_autograd(Odd(way), ["first.weight", "head.weight"], *images_and_labels(4))
    assert "first.weight" in str(error.value)


def test_layers_used_plainly_agree_with_autograd():
    check_against_autograd(tiny_vit(), VIT, *images_and_labels(4))
    check_against_autograd(tiny_convnet(), CONVNET, *images_and_labels(1))


class Scaled(nn.Linear):
    def forward(self, x):
        return functional.linear(x, 2 * self.weight, self.bias)


@pytest.mark.parametrize(
    "layer",
    [Scaled(48, 10), nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")],
)
def test_layers_of_other_kinds_are_refused_by_name(layer):
    model = nn.Sequential(layer)
    with pytest.raises(PruningError, match=r"0\.weight"):
        sample_gradients(model, ["0.weight"], *images_and_labels(2), consume=lambda name, gradients: None)


def test_weights_of_half_precision_are_refused_by_name():
    model = tiny_vit().to(torch.bfloat16)
    with pytest.raises(PruningError, match=r"head\.weight is torch\.bfloat16"):
        sample_gradients(model, ["head.weight"], *images_and_labels(2), consume=lambda name, gradients: None)


def test_a_norm_or_a_bias_is_refused_by_name():
    for name in ("blocks.0.norm1.weight", "head.bias"):
        with pytest.raises(PruningError, match=name):
            sample_gradients(tiny_vit(), [name], *images_and_labels(2), consume=lambda name, gradients: None)


def test_soft_labels_are_refused():
    images, labels = images_and_labels(2)
    soft = functional.one_hot(labels, 10).float()
    with pytest.raises(PruningError, match="class indices"):
        sample_gradients(tiny_vit(), VIT, images, soft, consume=lambda name, gradients: None)
