import copy
from dataclasses import replace

import oracles
import pytest
import torch
from cases import full_masks, images_and_labels, tiny_calibration, tiny_convnet, tiny_vit
from torch.nn import functional

from ovit_deploy.errors import PruningError
from ovit_deploy.kernels import triangle
from ovit_deploy.pruning import MFAC, FastOViT, GradientWeight, OViT
from ovit_deploy.pruning.fisher import Span, fishers
from ovit_deploy.pruning.loss import Loss, drawn
from ovit_deploy.pruning.samples import share

NAME = "blocks.0.mlp.fc1.weight"


def teacher(seed=5, dtype=torch.float64):
    return tiny_vit(seed).to(dtype).eval()


def fisher_of(model, calibration, num_grads=20, name=NAME, block=32):
    mask = torch.ones_like(model.get_parameter(name), dtype=torch.bool)
    span = Span(name, 0, mask.numel() // block, block)
    asked = {"num_grads": num_grads, "damping": 0.0, "work_bytes": 10**6}
    return triangle.whole(fishers(model, [span], {name: mask}, calibration, **asked).blocks[span], block)


def fisher_by_autograd(model, losses, name=NAME, block=32):
    weight = model.get_parameter(name)
    rows = [torch.autograd.grad(loss, weight)[0].double().reshape(-1, 1, block) for loss in losses]
    return sum(row.mT @ row for row in rows) / len(rows)


def test_drawn_labels_have_the_probabilities_of_the_model():
    logits_C = torch.tensor([2.0, 0.0, 1.0, -9.0])
    labels = drawn(logits_C.expand(20_000, 4), seed=3, first=0)
    share_C = torch.bincount(labels, minlength=4) / len(labels)
    torch.testing.assert_close(share_C, logits_C.softmax(0), atol=0.01, rtol=0)


def test_a_drawn_label_does_not_depend_on_the_batch_its_image_comes_in():
    logits_NC = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    whole = drawn(logits_NC, seed=7, first=0)
    parts = [drawn(logits_NC[at : at + 9], seed=7, first=at) for at in range(0, 50, 9)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(drawn(logits_NC, seed=8, first=0), whole)


def test_logits_that_leave_no_doubt_are_drawn_as_they_say():
    logits_NC = 1e4 * functional.one_hot(torch.tensor([0, 3, 9]), 10).float()
    assert drawn(logits_NC, seed=0, first=0).tolist() == [0, 3, 9]


@pytest.mark.parametrize("batch", [20, 7])
def test_a_sampled_fisher_is_that_of_the_drawn_labels(batch):
    model = tiny_vit().double().eval()
    images, _ = images_and_labels(20, dtype=torch.float64)
    calibration = replace(tiny_calibration(20, batch, torch.float64), loss=Loss("sampled", seed=4))
    labels = drawn(model(images).detach(), seed=4, first=0)
    losses = [functional.cross_entropy(model(x[None]), y[None]) for x, y in zip(images, labels, strict=True)]
    torch.testing.assert_close(fisher_of(model, calibration), fisher_by_autograd(model, losses))


def test_the_mean_of_sampled_fishers_is_the_true_fisher():
    """``sum_c p_c g_c g_c^T``, of which each seed gives one draw."""
    model = tiny_vit().double().eval()
    images, _ = images_and_labels(4, dtype=torch.float64)
    weight = model.get_parameter("head.weight")
    true_BB = torch.zeros(320, 320, dtype=torch.float64)
    for x in images:
        logs_C = model(x[None]).log_softmax(1)[0]
        for log in logs_C:
            g_B = torch.autograd.grad(log, weight, retain_graph=True)[0].flatten()
            true_BB += log.exp().detach() * torch.outer(g_B, g_B) / len(images)
    draws = [
        fisher_of(
            model, replace(tiny_calibration(4, 4, torch.float64), loss=Loss("sampled", seed=s)), 4, "head.weight", 320
        )
        for s in range(300)
    ]
    missed = (torch.cat(draws).mean(dim=0) - true_BB).norm() / true_BB.norm()
    assert missed < 0.1


def test_a_taught_fisher_is_that_of_the_soft_cross_entropy():
    model, dense = tiny_vit().double().eval(), teacher()
    images, _ = images_and_labels(20, dtype=torch.float64)
    calibration = replace(tiny_calibration(20, 6, torch.float64), loss=Loss("teacher", teacher=dense))
    losses = [-(dense(x[None]).softmax(1).detach() * model(x[None]).log_softmax(1)).sum() for x in images]
    torch.testing.assert_close(fisher_of(model, calibration), fisher_by_autograd(model, losses))


def test_a_model_that_is_its_own_teacher_is_an_error():
    model = tiny_vit().eval()
    calibration = replace(tiny_calibration(), loss=Loss("teacher", teacher=copy.deepcopy(model)))
    with pytest.raises(PruningError, match="answers as its teacher does"):
        fisher_of(model, calibration)


def test_a_teacher_of_other_classes_is_an_error():
    model, other = tiny_vit().eval(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 7)).eval()
    with pytest.raises(PruningError, match="7 classes, the model 10"):
        fisher_of(model, replace(tiny_calibration(), loss=Loss("teacher", teacher=other)))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"labels": "soft"}, "unknown choice 'soft'"),
        ({"precision": "float16"}, "unknown choice 'float16'"),
        ({"labels": "teacher"}, "not given"),
        ({"teacher": tiny_convnet().eval()}, "labels are 'hard'"),
        ({"labels": "teacher", "teacher": tiny_convnet().train()}, "training mode"),
    ],
)
def test_settings_that_mean_nothing_are_errors(asked, says):
    with pytest.raises(PruningError, match=says):
        Loss(**asked)


@pytest.mark.parametrize(("build", "name"), [(tiny_vit, NAME), (tiny_convnet, "grouped.weight")])
@pytest.mark.parametrize(("size", "batch"), [(4, 16), (5, 7), (10, 3)])
def test_a_gradient_may_be_that_of_the_mean_loss_of_several_images(size, batch, build, name):
    model = build().double().eval()
    images, labels = images_and_labels(40, dtype=torch.float64)
    calibration = replace(tiny_calibration(40, batch, torch.float64), images_per_gradient=size)
    groups = zip(images.split(size), labels.split(size), strict=True)
    losses = [functional.cross_entropy(model(x), y) for x, y in groups][: 40 // size - 1]
    block = model.get_parameter(name)[0].numel()
    found = fisher_of(model, calibration, len(losses), name, block)
    torch.testing.assert_close(found, fisher_by_autograd(model, losses, name, block))


def test_batches_hold_whole_gradients_in_the_order_of_the_stream():
    images, _ = images_and_labels(40)
    calibration = replace(tiny_calibration(40, 7), images_per_gradient=6)
    batches = list(share(calibration, 5, {}))
    assert [len(labels) % 6 for _, _, labels in batches] == [0] * len(batches)
    assert [first for first, _, _ in batches] == [0, 1, 2, 3, 4]
    assert torch.equal(torch.cat([part for _, part, _ in batches]), images[:30])


def test_too_few_images_for_the_gradients_are_an_error():
    model = tiny_vit()
    calibration = replace(tiny_calibration(40), images_per_gradient=6)
    for method in (OViT(32, 7), FastOViT(32, 7), GradientWeight(7), MFAC(32, 7)):
        with pytest.raises(PruningError, match="7 gradients of 6 images each are wanted, but calibration has only 40"):
            method.prune(model, full_masks(model, [NAME]), sparsity=0.5, calibration=calibration)


def test_no_images_per_gradient_are_an_error():
    with pytest.raises(PruningError, match="images_per_gradient is 0"):
        replace(tiny_calibration(), images_per_gradient=0)


def test_bfloat16_products_make_a_float32_fisher_that_is_near():
    model = tiny_vit().eval()
    exact = fisher_of(model, tiny_calibration(20))
    rounded = fisher_of(model, replace(tiny_calibration(20), loss=Loss(precision="bfloat16")))
    assert rounded.dtype == torch.float32
    gap = (rounded - exact).norm() / exact.norm()
    assert 1e-5 < gap < 0.03


@pytest.mark.parametrize("method", [OViT(32, 20), FastOViT(32, 20), GradientWeight(20), MFAC(32, 20)])
def test_every_method_with_gradients_takes_the_loss_it_is_told(method):
    model = tiny_vit().eval()
    masks = full_masks(model, [NAME])
    losses = (Loss(), Loss("sampled"), Loss("teacher", teacher=teacher(dtype=torch.float32)))
    found = [
        method.prune(model, masks, sparsity=0.5, calibration=replace(tiny_calibration(), loss=loss)) for loss in losses
    ]
    assert len({pruned.details["calibration_loss"] for pruned in found}) == 3
    assert len({tuple(pruned.masks[NAME].flatten().tolist()) for pruned in found}) == 3


def test_sampled_labels_are_the_same_at_every_pass():
    model, masks = tiny_vit(), full_masks(tiny_vit())
    calibration = replace(tiny_calibration(), loss=Loss("sampled"))
    whole, parts = (
        OViT(32, 40, damping=1e-4, memory_budget=budget).prune(model, masks, sparsity=0.6, calibration=calibration)
        for budget in (2**26, 300_000)
    )
    assert parts.details["passes"] > 10
    assert all(torch.equal(whole.masks[name], parts.masks[name]) for name in masks)


def test_the_oracle_of_hard_labels_is_still_what_is_taken_by_default():
    model = tiny_vit().double().eval()
    images, labels = images_and_labels(20, dtype=torch.float64)
    mask = torch.ones_like(model.get_parameter(NAME), dtype=torch.bool)
    expected = oracles.fisher_blocks(model, NAME, mask, images, labels, block_size=32, damping=0.0)
    torch.testing.assert_close(fisher_of(model, tiny_calibration(20, 7, torch.float64)), expected)
