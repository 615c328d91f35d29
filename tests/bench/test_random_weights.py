import timm
import torch
from torch import nn

from ovit_deploy.bench.random_weights import make_sparse, sparse_layers


def _vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2, num_heads=2, num_classes=5)


def test_the_four_linear_layers_of_every_block_become_sparse() -> None:
    model = make_sparse(_vit(), 0.75, seed=0)
    zeros = {name: (weight == 0).float().mean().item() for name, weight in model.named_parameters() if weight.ndim > 1}
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    sparse = {f"blocks.{block}.{layer}.weight" for block in range(2) for layer in layers}
    assert {name for name, part in zeros.items() if part == 0.75} == sparse
    assert all(part < 0.01 for name, part in zeros.items() if name not in sparse)


def test_other_families_keep_stem_and_head() -> None:
    model = nn.ModuleDict({"stem": nn.Conv2d(3, 4, 3), "body": nn.Conv2d(4, 4, 3), "head": nn.Linear(4, 2)})
    assert [name for name, _ in sparse_layers(model)] == ["body"]


def test_the_same_seed_gives_the_same_zeros() -> None:
    first, second = (make_sparse(nn.Sequential(nn.Linear(8, 8)), 0.5, seed=3) for _ in range(2))
    assert torch.equal(first[0].weight == 0, second[0].weight == 0)


def test_zeros_in_blocks_leave_whole_groups_of_inputs() -> None:
    model = make_sparse(_vit(), 0.75, block=4, seed=0)
    groups = model.get_submodule("blocks.0.mlp.fc1").weight.reshape(-1, 4) != 0  # type: ignore[operator, union-attr]
    assert torch.equal(groups.any(1), groups.all(1))
    assert groups.float().mean() == 0.25
