import pytest
import torch
from cases import full_masks, images_and_labels, tiny_calibration, tiny_vit

from ovit_deploy import device as devices
from ovit_deploy.errors import ModelError
from ovit_deploy.finetune.evaluate import evaluate
from ovit_deploy.pruning import FastOViT, GlobalMagnitude, OViT, SparseGPT, apply
from ovit_deploy.pruning.method import budget_for
from ovit_deploy.quantization import calibrate, insert
from ovit_deploy.recipe.quantization import Quantization

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize(
    ("name", "told"),
    [("gpu", "no such device"), ("mps", "float64"), ("cuda:99", "CUDA devices"), ("xpu", "float64")],
)
def test_a_device_that_is_not_here_is_an_error_and_no_fall_back(name, told):
    with pytest.raises(ModelError, match=told):
        devices.choose(name)


def test_without_a_name_it_is_the_gpu_where_there_is_one():
    assert devices.choose(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert devices.choose("cpu") == torch.device("cpu")
    assert devices.describe(devices.choose("cpu")) == "cpu"


def test_pruning_takes_half_of_what_is_free_where_the_model_is_unless_told():
    assert budget_for(tiny_vit(), 12345) == 12345
    free = devices.free_memory(torch.device("cpu"))
    assert 0.3 * free < budget_for(tiny_vit(), None) < 0.7 * free


@needs_cuda
@pytest.mark.parametrize(
    "method",
    [OViT(32, 24, 1e-5), OViT(32, 24, 1e-5, refine=True), FastOViT(32, 24), SparseGPT(24), GlobalMagnitude()],
    ids=repr,
)
def test_a_gpu_prunes_as_the_cpu_does(method):
    pruned = {}
    for name in ("cpu", "cuda"):
        model = tiny_vit().double().eval().to(name)
        calibration = tiny_calibration(24, 7, torch.float64)
        pruned[name] = method.prune(model, full_masks(model), sparsity=0.6, calibration=calibration)
        apply(model, pruned[name])
    for name, mask in pruned["cpu"].masks.items():
        assert torch.equal(mask, pruned["cuda"].masks[name].cpu())
        torch.testing.assert_close(pruned["cpu"].weights[name], pruned["cuda"].weights[name].cpu())


@needs_cuda
def test_a_gpu_quantizes_and_evaluates():
    model = tiny_vit().eval().cuda()
    insert(model, Quantization())
    images, labels = images_and_labels(8)
    calibrate(model, [(images, labels)])
    assert all(buffer.is_cuda for buffer in model.buffers())
    assert evaluate(model, [(images, labels)]).accuracy.total == 8
