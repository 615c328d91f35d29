"""Two processes share the images: the same Fisher matrices, hence the same masks, as one process."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from cases import full_masks, tiny_calibration, tiny_vit
from safetensors.torch import load_file, save_file
from torch import distributed, multiprocessing

from ovit_deploy.errors import PruningError
from ovit_deploy.pruning import MFAC, FastOViT, GradientWeight, OViT
from ovit_deploy.pruning.fisher import Span, fishers
from ovit_deploy.pruning.loss import Loss
from ovit_deploy.pruning.ranks import Ranks

NAME = "blocks.0.mlp.fc1.weight"
METHODS = {
    "OViT": OViT(32, 36, damping=1e-4, memory_budget=2**26, damping_kind="robust"),
    "streamed OViT": OViT(32, 36, damping=1e-4, memory_budget=400_000),
    "FastOViT": FastOViT(32, 36),
    "MFAC": MFAC(32, 36, damping=1e-4, memory_budget=2**26),
    "GradientWeight": GradientWeight(36),
}


def results(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Fisher matrices and masks, in float64."""
    torch.set_num_threads(1)
    model = tiny_vit().double()
    calibration = replace(tiny_calibration(40, 4, torch.float64), loss=Loss("sampled"), ranks=ranks)
    span, masks = Span(NAME, 0, 128, 32), full_masks(model, [NAME])
    found = fishers(model, [span], masks, calibration, num_grads=36, damping=0.0, work_bytes=10**6)
    tensors = {"fisher": found.blocks[span], "loss": torch.tensor(found.mean_loss)}
    for name, method in METHODS.items():
        pruned = method.prune(model, masks, sparsity=0.6, calibration=calibration)
        tensors |= {f"{name} {weight}": mask for weight, mask in pruned.masks.items()}
    return tensors


def check_exchange(ranks: Ranks) -> None:
    """Sums over the ranks, and what rank 0 has, of every kind of tensor."""
    own = ranks.rank + 1
    tensors = [torch.full((2, 3), float(own)), torch.tensor(own), torch.full((4,), own, dtype=torch.float64)]
    ranks.add_up(tensors)
    assert [float(tensor.sum()) for tensor in tensors] == [18, 3, 12]
    mask, weight = torch.tensor([True, False, ranks.is_first]), torch.full((2, 2), -1.5 * own)
    ranks.take_first([mask, weight.T])
    assert mask.tolist() == [True, False, True]
    assert (weight == -1.5).all()
    assert ranks.totals(0.5, own) == [1, 3]


def work(rank: int, folder: str) -> None:
    limit = timedelta(minutes=5)
    distributed.init_process_group("gloo", f"file://{folder}/store", timeout=limit, rank=rank, world_size=2)
    check_exchange(Ranks.of_process_group())
    save_file(results(Ranks.of_process_group()), f"{folder}/{rank}.safetensors")
    distributed.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=work, args=(1, str(tmp_path)))
    other.start()
    work(0, str(tmp_path))
    other.join()
    assert other.exitcode == 0
    alone = results(Ranks())
    for rank in range(2):
        shared = load_file(tmp_path / f"{rank}.safetensors")
        assert shared.keys() == alone.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(shared[name], tensor, msg=name)


def test_ranks_share_a_stream_without_gap_or_overlap() -> None:
    ranks = [Ranks(rank, 3, lambda total: None) for rank in range(3)]
    assert [sum(rank.owns(number) for rank in ranks) for number in range(10)] == [1] * 10


@pytest.mark.parametrize(("rank", "size", "says"), [(2, 2, "rank 2 of 2"), (0, 2, "without a way to add up")])
def test_ranks_that_mean_nothing_are_errors(rank: int, size: int, says: str) -> None:
    with pytest.raises(PruningError, match=says):
        Ranks(rank, size)
