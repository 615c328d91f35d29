"""Quantization in a recipe: one schema, and SparseML's older words for it. No torch here.

SparseML has two forms of ``QuantizationModifier`` under one tag. The newer one has a ``scheme``; it is ours, with
these differences:

* ``default`` quantizes weights per output channel, ``deepsparse`` per tensor, which that engine runs faster;
  ``tensorrt_sparse`` is ``tensorrt`` with outputs rounded, which its sparse INT8 kernels want;
* matrices are quantized (Linear, Conv2d and, if ``attention_products``, the two products of attention); LayerNorm,
  GELU and softmax stay in floating point, so ignoring them is allowed and without effect;
* nothing is fused: vision transformers have no batch norm to fold.

The older form names switches instead (``weight_bits``, ``reduce_range``, ``tensorrt``): `from_older_form` translates.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ovit_deploy.recipe.declaration import Declaration, Modifier

ObserverName = Literal["min_max", "moving_average", "percentile", "mse"]


class TensorScheme(Declaration):
    """How one tensor is quantized.

    ``symmetric``: int8 around a zero point of 0, else uint8 with a zero point of its own. ``strategy``: one scale a
    tensor or one an output channel. ``observer``: how the range is found (`ovit_deploy.quantization.observers`).
    """

    num_bits: int = Field(8, ge=2, le=8)
    symmetric: bool = False
    strategy: Literal["tensor", "channel"] = "tensor"
    observer: ObserverName = "moving_average"
    kwargs: dict[str, Any] = Field({}, max_length=0, description="other tools' settings: none here")


class Scheme(Declaration):
    """How a layer is quantized: its weights, what goes in, and what comes out; null leaves a tensor alone.

    What comes out of the first layer of an MLP is rounded after its activation function, as the input of the second.
    """

    weights: TensorScheme | None = TensorScheme(symmetric=True, strategy="channel", observer="min_max")
    input_activations: TensorScheme | None = TensorScheme()
    output_activations: TensorScheme | None = None
    target_hardware: str | None = Field(None, description="has no effect")

    @model_validator(mode="after")
    def _can_be_exported(self) -> "Scheme":
        if self.weights is not None and not self.weights.symmetric:
            raise ValueError("weights must be symmetric, so that pruned ones stay exactly zero")
        for tensor in (self.input_activations, self.output_activations):
            if tensor is not None and (tensor.num_bits != 8 or tensor.strategy != "tensor"):
                raise ValueError("activations take 8 bits and the strategy tensor: engines run nothing else")
        if self.weights is None and self.input_activations is None and self.output_activations is None:
            raise ValueError("quantizes nothing: say ignore instead")
        return self


_SYMMETRIC = TensorScheme(symmetric=True)
NAMED = {
    "default": Scheme(),
    "deepsparse": Scheme(weights=TensorScheme(symmetric=True, observer="min_max")),
    "tensorrt": Scheme(input_activations=_SYMMETRIC),
    "tensorrt_sparse": Scheme(input_activations=_SYMMETRIC, output_activations=_SYMMETRIC),
}


def _named(value: Any) -> Any:
    """The scheme of that name; what is no name as it is."""
    if value is None:
        return NAMED["default"]
    if not isinstance(value, str):
        return value
    if value not in NAMED:
        raise ValueError(f"a scheme is {', '.join(NAMED)} or a mapping")
    return NAMED[value]


SchemeOrName = Annotated[
    Scheme,
    BeforeValidator(
        _named, json_schema_input_type=Scheme | Literal["default", "deepsparse", "tensorrt", "tensorrt_sparse"] | None
    ),
]


class Quantization(Declaration):
    """Which layers are quantized and how: what a checkpoint keeps, so that the model can be rebuilt.

    ``submodules``, ``ignore`` and the keys of ``scheme_overrides`` are names of modules (with all that is inside) or,
    the last two, of module classes. A module's own name counts before its class. The two products of an attention are
    called ``products``, as if they were a module in it: ``blocks.0.attn.products``.
    """

    scheme: SchemeOrName = NAMED["default"]
    scheme_overrides: Annotated[dict[str, SchemeOrName], BeforeValidator(lambda value: value or {})] = Field({})
    submodules: tuple[str, ...] | None = None
    ignore: Annotated[tuple[str, ...], BeforeValidator(lambda value: value or ())] = ()
    attention_products: bool = Field(False, description="quantize Q K^T and the product of attention and V, too")
    strict: bool = Field(True, description="each name must be in the model")


class QuantizationModifier(Modifier, Quantization):
    """Train with weights and activations rounded to eight bits from ``start_epoch`` on (arXiv 1712.05877).

    Ranges are observed while training until ``disable_quantization_observer_epoch``; before that, on
    ``num_calibration_steps`` batches of 64 training images, where asked for.
    """

    disable_quantization_observer_epoch: float | None = Field(None, ge=0)
    freeze_bn_stats_epoch: float | None = Field(None, ge=0)
    num_calibration_steps: int | None = Field(None, ge=1)
    model_fuse_fn_name: Literal["no_fuse"] | None = None
    model_fuse_fn_kwargs: dict[str, Any] | None = Field(None, description="has no effect: nothing is fused")

    @property
    def quantization(self) -> Quantization:
        """What is quantized and how, without when."""
        return Quantization(**{name: getattr(self, name) for name in Quantization.model_fields})

    def describe(self) -> str:
        """Bits of weights and activations, for a table."""
        scheme = self.scheme
        bits = [
            f"{kind} {'symmetric ' if tensor.symmetric else ''}{tensor.num_bits} bits a {tensor.strategy}"
            for kind, tensor in (("weights", scheme.weights), ("activations", scheme.input_activations))
            if tensor is not None
        ]
        return ", ".join([*bits, *(["attention products"] if self.attention_products else [])])

    @model_validator(mode="after")
    def _lasts(self) -> "QuantizationModifier":
        if self.end_epoch != -1:
            raise ValueError("quantization lasts to the end: leave out end_epoch")
        for key in ("disable_quantization_observer_epoch", "freeze_bn_stats_epoch"):
            epoch = getattr(self, key)
            if epoch is not None and epoch < self.start:
                raise ValueError(f"{key} {epoch:g} comes before start_epoch {self.start:g}")
        if self.disable_quantization_observer_epoch == self.start and self.num_calibration_steps is None:
            raise ValueError("observers that stop at start_epoch see nothing: give num_calibration_steps")
        return self


_OLDER = {
    "quantize_embeddings",
    "reduce_range",
    "quantize_linear_activations",
    "quantize_conv_activations",
    "quantize_embedding_activations",
    "activation_bits",
    "weight_bits",
    "exclude_batchnorm",
    "exclude_module_types",
    "custom_quantizable_module_types",
    "activation_qconfig_kwargs",
    "weight_qconfig_kwargs",
    "tensorrt",
}
_REFUSED = {"custom_quantizable_module_types", "activation_qconfig_kwargs", "weight_qconfig_kwargs"}


def from_older_form(values: dict[str, Any]) -> dict[str, Any]:
    """The keys of a ``QuantizationModifier`` in SparseML's older form, in those of the newer; others as they are.

    ``reduce_range`` takes a bit from weights alone: that suffices against the 16-bit overflow it is meant for.

    Raises:
        ValueError: keys of both forms, or a setting that we do not have.
    """
    old = {key: value for key, value in values.items() if key in _OLDER}
    if not old:
        return values
    both = sorted(values.keys() & {"scheme", "scheme_overrides", "ignore"})
    if both:
        raise ValueError(f"{both[0]} and {sorted(old)[0]} are keys of two forms: use one")
    refused = sorted(key for key in _REFUSED if old.get(key))
    if refused:
        raise ValueError(f"{refused[0]} is not supported: say scheme with num_bits, symmetric, strategy and observer")
    weights = TensorScheme(
        num_bits=old.get("weight_bits", 8) - bool(old.get("reduce_range", False)),
        symmetric=True,
        strategy="channel",
        observer="min_max",
    )
    inputs = TensorScheme(num_bits=old.get("activation_bits", 8), symmetric=bool(old.get("tensorrt", False)))
    kept = {key: value for key, value in values.items() if key not in _OLDER}
    without = Scheme(weights=weights, input_activations=None)
    switches = {"Linear": "quantize_linear_activations", "Conv2d": "quantize_conv_activations"}
    return kept | {
        "scheme": Scheme(weights=weights, input_activations=inputs),
        "scheme_overrides": {kind: without for kind, key in switches.items() if not old.get(key, True)},
        "ignore": tuple(old.get("exclude_module_types") or ()),
        "strict": False,
    }
