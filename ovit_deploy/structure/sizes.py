"""What is left of a network: plain data, written as JSON into checkpoints.

Of a vision transformer, how many heads and neurons each block has (`Structure`); of any other network, the shapes of
the tensors that were cut (`Shapes`).
"""

from collections.abc import Mapping
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
    """The blocks that there are, in their order; the embedding width where it is less than timm's."""

    blocks: tuple[BlockSizes, ...]
    embed_dim: int | None = None

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
        width = {} if self.embed_dim is None else {"embed_dim": self.embed_dim}
        return {"blocks": [asdict(block) for block in self.blocks]} | width

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Structure":
        """The structure that a checkpoint tells.

        Raises:
            ModelError: it is none.
        """
        try:
            width = None if values.get("embed_dim") is None else int(values["embed_dim"])
            blocks = tuple(BlockSizes(**{key: int(size) for key, size in block.items()}) for block in values["blocks"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the checkpoint's structure cannot be read: {error!r}", "copy it again") from error
        numbers = [block.number for block in blocks]
        if width is not None and width < 1:
            raise ModelError("the checkpoint's structure is not one: its width is none", "prune again")
        if not blocks or numbers != sorted(set(numbers)) or min(min(b.heads, b.width) for b in blocks) < 1:
            raise ModelError(
                "the checkpoint's structure is not one: blocks, heads or neurons are missing", "prune again"
            )
        return cls(blocks, width)


@dataclass(frozen=True)
class Shapes:
    """The shapes that cut parameters and buffers have now, by name."""

    of: Mapping[str, tuple[int, ...]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"shapes": {name: list(shape) for name, shape in self.of.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Shapes":
        """The shapes that a checkpoint tells.

        Raises:
            ModelError: they are none.
        """
        try:
            shapes = {str(name): tuple(int(size) for size in shape) for name, shape in values["shapes"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the checkpoint's structure cannot be read: {error!r}", "copy it again") from error
        if not shapes or not all(shape and min(shape) > 0 for shape in shapes.values()):
            raise ModelError("the checkpoint's structure is not one: a shape is empty", "prune again")
        return cls(shapes)

    def refuse_larger(self, whole: Mapping[str, tuple[int, ...]]) -> None:
        """Compare with the shapes of a model.

        Raises:
            ModelError: the model has no such tensor, or a smaller one.
        """
        for name, shape in self.of.items():
            there = whole.get(name, ())
            if len(there) != len(shape) or any(size < mine for size, mine in zip(there, shape, strict=True)):
                raise ModelError(f"{name}: the structure has more than the model", "check --checkpoint")


AnyStructure = Structure | Shapes


def read_structure(values: dict[str, Any]) -> AnyStructure:
    """The structure that a checkpoint tells, of either kind.

    Raises:
        ModelError: it is none.
    """
    return Shapes.from_dict(values) if "shapes" in values else Structure.from_dict(values)
