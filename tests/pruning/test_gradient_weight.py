import oracles
import pytest
import torch
from cases import full_masks, images_and_labels, tiny_calibration, tiny_convnet, tiny_vit

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import GradientWeight

CASES = [
    (tiny_vit, ["blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.weight"]),
    (tiny_convnet, ["stem.weight", "grouped.weight", "depthwise.weight", "head.weight"]),
]


@pytest.mark.parametrize(("build", "names"), CASES)
@pytest.mark.parametrize("budget", [1, 10**8])
def test_the_smallest_sums_of_absolute_products_go(build, names, budget):
    model = build().double().eval()
    images, labels = images_and_labels(20, dtype=torch.float64)
    pruned = GradientWeight(num_grads=15, memory_budget=budget).prune(
        model, full_masks(model, names), sparsity=0.5, calibration=tiny_calibration(20, 6, torch.float64)
    )
    score, kept = [], []
    for name in names:
        weight = model.get_parameter(name)
        total = sum(
            (oracles.sample_gradient(model, name, image, label) * weight).abs()
            for image, label in zip(images[:15], labels[:15], strict=True)
        )
        score.append(total.detach().flatten())
        kept.append(pruned.masks[name].flatten())
        assert torch.equal(pruned.weights[name], weight.detach() * pruned.masks[name])
    assert torch.cat(score)[~torch.cat(kept)].max() <= torch.cat(score)[torch.cat(kept)].min()
    assert pruned.predicted_loss is None


def test_a_layer_whose_gradients_cannot_be_had_is_refused_by_name():
    model = tiny_vit()
    with pytest.raises(PruningError, match=r"blocks\.0\.norm1\.weight belongs to a LayerNorm"):
        GradientWeight(num_grads=4).prune(
            model, full_masks(model, ["blocks.0.norm1.weight"]), sparsity=0.5, calibration=tiny_calibration(4)
        )
