"""Runs in SparseML's environment, told by test_sparseml.py what to do; prints JSON. Imports no pytest, no timm."""

import hashlib
import json
import logging
import sys
from importlib import import_module
from typing import Any

import torch
from network import Network
from torch import nn


def data(num_batches: int, seed: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(8, 3, 8, 8, generator=draw), torch.randint(0, 5, (8,), generator=draw)) for _ in range(num_batches)
    ]


def sampler(num_batches: int = 8) -> dict[str, Any]:
    return {
        "data_loader_builder": lambda kwargs: (([images], {}, labels) for images, labels in data(num_batches)),
        "loss_function": nn.functional.cross_entropy,
    }


def trained(manager: Any, *, num_epochs: int = 4, **kwargs: Any) -> dict[str, Any]:
    """Real training by a recipe: sparsities, learning rates and losses of each step, and the weights at the end."""
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    batches = data(4)
    wrapped = manager.modify(model, optimizer, steps_per_epoch=len(batches), **kwargs)
    rows = []
    model.train()
    for images, labels in batches * num_epochs:
        wrapped.zero_grad()
        loss = wrapped.loss_update(nn.functional.cross_entropy(model(images), labels))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        wrapped.step()
        rows.append([float(loss.detach()), optimizer.param_groups[0]["lr"], zeros(model)])
    manager.finalize(model)
    digest = hashlib.sha1(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
    return {"rows": rows, "weights": digest}


def zeros(model: nn.Module) -> dict[str, list[int]]:
    """Count of zeros of each matrix, and the sum of their places: the masks in short."""
    found = {name: (p == 0).flatten().nonzero().flatten() for name, p in model.named_parameters() if p.dim() == 2}
    return {name: [len(places), int(places.sum())] for name, places in found.items()}


def one_shot(manager: Any, **kwargs: Any) -> dict[str, Any]:
    model = Network()
    manager.apply(model, **kwargs)
    weights = [p.detach().double().norm().item() for p in model.parameters()]
    return {"zeros": zeros(model), "norms": weights}


def main() -> None:
    told = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    for name in told.get("imports", []):
        import_module(name)
    from sparseml.pytorch.optim import ScheduledModifierManager

    manager = ScheduledModifierManager.from_yaml(told["recipe"])
    kwargs = {"grad_sampler": sampler()} if told.get("samples") else {}
    action = {"train": trained, "one_shot": one_shot}[told["action"]]
    print(json.dumps(action(manager, **kwargs)))


if __name__ == "__main__":
    main()
