"""The deterministic network of the golden traces. Imports torch only: SparseML's environment has it, too."""

import hashlib

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj((q @ k.transpose(-1, -2)).softmax(-1) @ v)


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Network(nn.Module):
    """Four patches, two blocks; matrices hold sines, so that every machine has the same weights."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.ModuleList([Block(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)
        for index, (name, parameter) in enumerate(self.named_parameters(), 1):
            if name.endswith("bias"):
                parameter.data.zero_()
            elif parameter.dim() > 1:
                k = np.arange(parameter.numel(), dtype=np.float64)
                sines = np.sin(k * 0.37 + index) * (1 + index * 0.1)
                parameter.data.copy_(torch.tensor(sines, dtype=torch.float32).reshape(parameter.shape))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


def zeros_of(model: nn.Module) -> tuple[str, float]:
    """The sha1 of where the matrices are zero, and the fraction that is."""
    kept = [(p.detach().numpy() != 0).reshape(-1) for p in model.parameters() if p.dim() > 1]
    digest = hashlib.sha1(b"".join(np.packbits(part).tobytes() for part in kept))
    return digest.hexdigest()[:12], round(1 - float(np.concatenate(kept).mean()), 6)


def trace(manager, name: str) -> list[list]:
    """Each step's epoch, learning rate, weight decay, sparsity and mask; the weights do not learn."""
    model, still = Network(), name.startswith(("lr_", "weight"))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = (
        [{"params": decayed}, {"params": others, "weight_decay": 0.0}] if name == "weight_decay_groups" else decayed
    )
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.0, weight_decay=1e-4)
    wrapped = manager.modify(model, optimizer, steps_per_epoch=4)
    rows = []
    for _ in range(24):
        optimizer.zero_grad()
        (model(torch.ones(2, 3, 8, 8)).square().mean() * (0 if still else 1)).backward()
        epoch = wrapped.wrapped_epoch
        wrapped.step()
        mask, sparsity = zeros_of(model)
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        rows.append([epoch, optimizer.param_groups[0]["lr"], decays, sparsity, mask])
    manager.finalize(model)
    return rows
