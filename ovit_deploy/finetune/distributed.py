"""One run in several processes: how they find each other, and which of them writes.

    torchrun --nproc-per-node N -m ovit_deploy prune --recipe ...

Every rank holds the whole model, and takes its share of each step's images (data/order.py), of the calibration images
(pruning/ranks.py) and of the test images. What is added up over ranks are gradients, once a step, before they are
masked and clipped; Fisher matrices, once a pass; and counts. All else each rank does by itself, from equal tensors to
equal tensors. Rank 0 alone writes: the run's folder, its checkpoints, the command's output.

Buffers that a forward pass changes (statistics of BatchNorm, ranges of quantizers) are those of rank 0's share of the
images, as in torch's DistributedDataParallel.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from ovit_deploy import device as devices
from ovit_deploy import working_folder
from ovit_deploy.errors import OvitError
from ovit_deploy.pruning.ranks import ALONE, Ranks

PATIENCE = timedelta(minutes=30)  # with a rank that is silent; of one that has ended the others know at once


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The ranks that torchrun started, this process one of them; a single rank without torchrun.

    Tensors on CUDA devices are added up by NCCL, others by Gloo. A process that fails leaves without goodbye: its
    closed connections are what ends the others.
    """
    if not distributed.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield Ranks.of_process_group()
    distributed.destroy_process_group()


def device_of(name: str | None) -> torch.device:
    """What `device.choose` says; of several GPUs each process that torchrun started has its own.

    Raises:
        OvitError: there is no such device, or it is one GPU for several processes.
    """
    chosen = devices.choose(name)
    if chosen.type == "cpu" or not distributed.is_torchelastic_launched():
        return chosen
    if name is not None and ":" in name:
        raise OvitError(f"--device {name}: one GPU for all processes of torchrun", "give cuda: each takes its own")
    return devices.choose(f"cuda:{os.environ['LOCAL_RANK']}")


def budget_of(memory_budget: int | None, ranks: Ranks, device: torch.device) -> int | None:
    """Bytes of each rank, the same for all: how often the images are passed over follows from it.

    By default half of what is free: on its GPU, or of a rank's share of its machine's memory.
    """
    if memory_budget is not None or ranks.size == 1:
        return memory_budget
    sharers = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.size)) if device.type == "cpu" else 1
    (free,) = ranks.totals(devices.free_memory(device) / sharers)
    return int(free / ranks.size / 2)


def clock(ranks: Ranks) -> float:
    """The time of rank 0, in seconds as `time.time` gives them."""
    (now,) = ranks.totals(time.time() if ranks.is_first else 0)
    return now


@contextlib.contextmanager
def shared_run(ranks: Ranks, name: str, runs: Path, *, resume: bool) -> Iterator[Path]:
    """`working_folder.new_run`, by rank 0; the others use the folder while it is there."""
    if not ranks.is_first:
        ranks.totals(0)
        yield working_folder.partial_folder(name, runs)
        ranks.totals(0)
        return
    with working_folder.new_run(name, runs, resume=resume) as folder:
        ranks.totals(0)
        yield folder
        ranks.totals(0)
