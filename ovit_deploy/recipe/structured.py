"""Modifiers that remove parts of a network for good, so that no zeros are left.

Of vision transformers heads, neurons of MLPs and blocks; of convolutional and hybrid networks channels.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ovit_deploy.recipe.declaration import Declaration, Modifier
from ovit_deploy.recipe.schedule import Interpolation, interpolate, update_epochs
from ovit_deploy.recipe.sparsifier import Fraction

Part = Literal["heads", "neurons", "blocks", "channels", "embedding"]
Kind = Literal["heads", "neurons", "blocks", "channels", "embedding", "flops", "parameters", "latency"]
Saliency = Literal["obs", "taylor", "magnitude", "loss"]


Milliseconds = Annotated[float, Field(ge=0)]


class Latency(Declaration):
    """What parts take on an engine, as ``prune --target-latency`` measures it and writes it into the run's recipe.

    A network takes ``rest_ms``, and each of its blocks ``block_ms`` with what its heads and its width take; between
    the counts that were measured, lines are straight.
    """

    engine: str
    batch_size: int = Field(ge=1)
    threads: int = Field(ge=1)
    heads_ms: dict[int, Milliseconds] = Field(min_length=1)
    width_ms: dict[int, Milliseconds] = Field(min_length=1)
    block_ms: Milliseconds
    rest_ms: Milliseconds


class StructuredModifier(Modifier):
    """What they share: how much goes when, by which score, counted how.

    ``final_sparsity`` is the fraction that is removed of what ``budget`` counts in the model as it is when the modifier
    starts: of the whole network's multiply-accumulates, say, whatever is removed. At least that much goes, and as
    little more as the parts allow.
    """

    parts: ClassVar[tuple[Part, ...]]

    start_epoch: float = Field(ge=0)
    end_epoch: float = Field(ge=0)
    update_frequency: float = Field(1.0, gt=0)
    init_sparsity: Fraction = 0.0
    final_sparsity: Fraction
    inter_func: Interpolation = "cubic"
    saliency: Saliency = Field(
        "obs", description="obs: group OBS, what stays compensates; taylor: squared gate gradients; magnitude: squares"
    )
    num_grads: int = Field(1024, ge=1, description="training images whose gradients decide; magnitude takes none")
    damp: float = Field(1e-2, gt=0, description="of obs, relative to the mean diagonal")
    latency: Latency | None = Field(None, description="of budget latency: measured by prune --target-latency")

    @property
    def kind(self) -> Kind:
        """What is counted."""
        kind: Kind = getattr(self, "budget")  # noqa: B009 - each modifier has its own choices
        return kind

    @property
    def num_images(self) -> int:
        """Calibration images that a removal looks at."""
        return 0 if self.saliency == "magnitude" else self.num_grads

    @property
    def dates(self) -> list[tuple[float, float]]:
        """Epochs of removals, and the fraction that is removed then."""
        start, end = self.start_epoch, self.end_epoch
        if end <= start:
            return [(start, self.final_sparsity)]
        dated = [(epoch, self._sparsity((epoch - start) / (end - start))) for epoch in self._epochs()]
        return [(epoch, sparsity) for epoch, sparsity in dated if sparsity > 0]

    def _epochs(self) -> list[float]:
        return update_epochs(self.start_epoch, self.end_epoch, self.update_frequency)

    def _sparsity(self, share: float) -> float:
        return interpolate(share, self.init_sparsity, self.final_sparsity, self.inter_func)

    def describe(self, sparsity: float) -> str:
        """A removal in a few words."""
        return f"{' and '.join(self.parts)} ({self.saliency}): {sparsity:.2%} of {self.kind} less"

    @model_validator(mode="after")
    def _grows(self) -> "StructuredModifier":
        if self.final_sparsity < self.init_sparsity:
            raise ValueError(f"final_sparsity {self.final_sparsity:g} is below init_sparsity {self.init_sparsity:g}")
        return self

    @model_validator(mode="after")
    def _has_prices(self) -> "StructuredModifier":
        if self.kind == "latency" and self.latency is None:
            raise ValueError("budget latency needs what parts take: prune --target-latency measures it and sets both")
        if self.kind != "latency" and self.latency is not None:
            raise ValueError(f"latency is given, but budget {self.kind} does not count it: set budget: latency")
        return self

    @model_validator(mode="after")
    def _can_be_scored(self) -> "StructuredModifier":
        if self.saliency == "loss" and self.parts != ("blocks",):
            raise ValueError("saliency loss is measured of blocks only: use obs, taylor or magnitude")
        if self.saliency != "magnitude" and self.parts == ("embedding",):
            raise ValueError(f"saliency {self.saliency} is not known of the embedding: leave it out")
        if self.saliency == "taylor" and self.parts == ("channels",):
            raise ValueError("saliency taylor is not known of channels: use obs or magnitude")
        return self


class HeadPruningModifier(StructuredModifier):
    """Remove attention heads: rows of Q, K and V, columns of the projection; blocks may keep different numbers."""

    parts: ClassVar[tuple[Part, ...]] = ("heads",)

    budget: Literal["heads", "flops", "parameters", "latency"] = "heads"
    min_heads: int = Field(1, ge=1, description="that each block keeps")


class WidthPruningModifier(StructuredModifier):
    """Remove neurons of MLPs: rows of fc1, columns of fc2; blocks may keep different widths."""

    parts: ClassVar[tuple[Part, ...]] = ("neurons",)

    budget: Literal["neurons", "flops", "parameters", "latency"] = "neurons"
    multiple_of: int = Field(32, ge=1, description="widths that are cut become multiples, as engines like them")
    min_width: int = Field(32, ge=1, description="that each block keeps")


class HeadWidthPruningModifier(StructuredModifier):
    """Remove heads and neurons that compete under one budget."""

    parts: ClassVar[tuple[Part, ...]] = ("heads", "neurons")

    budget: Literal["flops", "parameters", "latency"] = "flops"
    min_heads: int = Field(1, ge=1, description="that each block keeps")
    multiple_of: int = Field(32, ge=1, description="widths that are cut become multiples, as engines like them")
    min_width: int = Field(32, ge=1, description="that each block keeps")


class DepthPruningModifier(StructuredModifier):
    """Remove whole blocks; the others keep their numbers, and so the names of their weights."""

    parts: ClassVar[tuple[Part, ...]] = ("blocks",)

    saliency: Saliency = Field(
        "loss", description="loss: of the images without a block, measured; the others as for heads and widths"
    )
    budget: Literal["blocks", "flops", "parameters", "latency"] = "blocks"
    min_blocks: int = Field(1, ge=1, description="that the network keeps")


class ChannelPruningModifier(StructuredModifier):
    """Remove channels of convolutional and hybrid networks from all layers that make, pass on or read them.

    Which channels go together is read off the model; those that a LayerNorm, attention or a grouped convolution mixes
    stay.
    """

    parts: ClassVar[tuple[Part, ...]] = ("channels",)

    budget: Literal["channels", "flops", "parameters"] = "flops"
    multiple_of: int = Field(8, ge=1, description="numbers of channels that are cut become multiples of it")
    min_channels: int = Field(8, ge=1, description="that each group keeps")


class EmbeddingPruningModifier(StructuredModifier):
    """Remove channels of a ViT's residual stream, the same in all blocks: a narrower embedding.

    LayerNorms take their statistics of what stays, so the model changes more than the channels alone are worth: leave
    it time to train, or remove in several steps.
    """

    parts: ClassVar[tuple[Part, ...]] = ("embedding",)

    saliency: Saliency = Field("magnitude", description="squares of all weights of a channel; no other is known")
    budget: Literal["embedding", "flops", "parameters"] = "embedding"
    multiple_of: int = Field(32, ge=1, description="the width becomes a multiple of it")
    min_width: int = Field(32, ge=1, description="of the embedding, afterwards")
