import torch
from cases import full_masks, tiny_calibration, tiny_vit

from ovit_deploy.pruning import Wanda
from ovit_deploy.pruning.hessian import images_for, input_norms

NAME = "blocks.1.mlp.fc2.weight"


def test_each_row_loses_its_smallest_scores_and_nothing_else_changes():
    model = tiny_vit()
    pruned = Wanda(num_samples=40).prune(model, full_masks(model, [NAME]), sparsity=0.7, calibration=tiny_calibration())
    norm_I = input_norms(model, [NAME], images_for("Test", tiny_calibration(), 40))[NAME][0]
    weight, mask = model.get_parameter(NAME).detach(), pruned.masks[NAME]
    for w_I, kept_I in zip(weight.double(), mask, strict=True):
        score_I = w_I.abs() * norm_I
        assert int((~kept_I).sum()) in (89, 90)  # 0.7 of 128
        assert score_I[~kept_I].max() <= score_I[kept_I].min()
    assert torch.equal(pruned.weights[NAME], weight * mask)


def test_a_large_input_saves_a_small_weight():
    model = tiny_vit()
    with torch.no_grad():
        model.blocks[0].norm1.weight.fill_(0.01)
        model.blocks[0].norm1.weight[5] = 100
    name = "blocks.0.attn.qkv.weight"
    pruned = Wanda(num_samples=40).prune(model, full_masks(model, [name]), sparsity=0.9, calibration=tiny_calibration())
    assert pruned.masks[name][:, 5].float().mean() > 0.95
