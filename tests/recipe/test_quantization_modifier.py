import pytest

from ovit_deploy.errors import RecipeError
from ovit_deploy.recipe.load import parse_recipe
from ovit_deploy.recipe.quantization import NAMED, QuantizationModifier, Scheme
from ovit_deploy.recipe.timeline import Freeze, Quantize, timeline
from ovit_deploy.recipe.write import write


def modifier(keys: str) -> QuantizationModifier:
    (read,) = parse_recipe(f"m_modifiers: [!QuantizationModifier {{{keys}}}]").modifiers
    assert isinstance(read, QuantizationModifier)
    return read


@pytest.mark.parametrize("keys", ["start_epoch: 0", "scheme: null", "scheme: default"])
def test_the_default_is_channels_of_weights_and_unsigned_activations(keys: str) -> None:
    scheme = modifier(keys).quantization.scheme
    assert scheme.weights is not None and scheme.input_activations is not None
    assert (scheme.weights.symmetric, scheme.weights.strategy) == (True, "channel")
    assert (scheme.input_activations.symmetric, scheme.input_activations.strategy) == (False, "tensor")
    assert scheme.output_activations is None


def test_the_newer_form_is_taken_as_it_is() -> None:
    read = modifier(
        "start_epoch: 2, ignore: ['LayerNorm', 'head'], strict: false, disable_quantization_observer_epoch: 3, "
        "scheme: {input_activations: {num_bits: 8, symmetric: false}, weights: {num_bits: 4, symmetric: true}}, "
        "scheme_overrides: {head: tensorrt}, freeze_bn_stats_epoch: 2.5, model_fuse_fn_name: no_fuse"
    )
    assert read.ignore == ("LayerNorm", "head")
    assert read.scheme.weights is not None and read.scheme.weights.num_bits == 4
    assert read.scheme_overrides == {"head": NAMED["tensorrt"]}


def test_the_older_form_becomes_the_newer() -> None:
    read = modifier("start_epoch: 0, submodules: ['blocks'], reduce_range: true, quantize_linear_activations: false")
    assert read.submodules == ("blocks",)
    assert read.scheme.weights is not None and read.scheme.weights.num_bits == 7
    assert read.scheme_overrides == {"Linear": Scheme(weights=read.scheme.weights, input_activations=None)}
    assert modifier("tensorrt: true").quantization.scheme == NAMED["tensorrt"]


def test_a_recipe_of_the_older_form_reads_back_as_it_was_written() -> None:
    recipe = parse_recipe("m_modifiers: [!QuantizationModifier {start_epoch: 1, weight_bits: 6, tensorrt: true}]")
    assert parse_recipe(write(recipe)).modifiers == recipe.modifiers


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("scheme: fast", "a scheme is default, deepsparse, tensorrt, tensorrt_sparse or a mapping"),
        ("scheme: {weights: {symmetric: false}}", "weights must be symmetric"),
        ("scheme: {input_activations: {num_bits: 4}}", "activations take 8 bits"),
        ("scheme: default, tensorrt: true", "keys of two forms"),
        ("custom_quantizable_module_types: [Mine]", "custom_quantizable_module_types is not supported"),
        ("end_epoch: 3", "lasts to the end"),
        ("start_epoch: 2, freeze_bn_stats_epoch: 1", "comes before start_epoch"),
        ("start_epoch: 2, disable_quantization_observer_epoch: 2", "see nothing: give num_calibration_steps"),
        ("model_fuse_fn_name: conv_bn_relus", "model_fuse_fn_name"),
        ("num_calibration_step: 3", "did you mean 'num_calibration_steps'"),
    ],
)
def test_what_cannot_be_done_is_told(keys: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        modifier(keys)


def test_quantization_comes_after_the_pruning_of_its_epoch_and_before_the_freezing() -> None:
    prune = (
        "{params: __ALL__, init_sparsity: 0, final_sparsity: 0.5, start_epoch: 1, end_epoch: 1, update_frequency: 1}"
    )
    plan = timeline(
        parse_recipe(
            "modifiers:\n  - !QuantizationModifier {start_epoch: 1, num_calibration_steps: 1, "
            "disable_quantization_observer_epoch: 1, freeze_bn_stats_epoch: 2}\n"
            f"  - !GMPruningModifier {prune}\n"
        )
    )
    kinds = [(item.epoch, type(item.action).__name__) for item in plan.dated]
    assert kinds == [(1, "Prune"), (1, Quantize.__name__), (1, Freeze.__name__), (2, Freeze.__name__)]
