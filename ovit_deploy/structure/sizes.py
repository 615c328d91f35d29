"""How many heads and neurons each block of a network has: plain data, written as JSON into checkpoints."""

from dataclasses import asdict, dataclass
from typing import Any

from ovit_deploy.errors import ModelError


@dataclass(frozen=True)
class BlockSizes:
    """One block: its number in the whole network, its heads, and the neurons of its MLP."""

    number: int
    heads: int
    width: int


@dataclass(frozen=True)
class Structure:
    """The blocks that there are, in their order."""

    blocks: tuple[BlockSizes, ...]

    @property
    def num_heads(self) -> int:
        """In all blocks together."""
        return sum(block.heads for block in self.blocks)

    @property
    def num_neurons(self) -> int:
        """In all blocks together."""
        return sum(block.width for block in self.blocks)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"blocks": [asdict(block) for block in self.blocks]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Structure":
        """The structure that a checkpoint tells.

        Raises:
            ModelError: it is none.
        """
        try:
            blocks = tuple(BlockSizes(**{key: int(size) for key, size in block.items()}) for block in values["blocks"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the checkpoint's structure cannot be read: {error!r}", "copy it again") from error
        numbers = [block.number for block in blocks]
        if not blocks or numbers != sorted(set(numbers)) or min(min(b.heads, b.width) for b in blocks) < 1:
            raise ModelError(
                "the checkpoint's structure is not one: blocks, heads or neurons are missing", "prune again"
            )
        return cls(blocks)
