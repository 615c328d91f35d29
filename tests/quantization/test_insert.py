import copy

import pytest
import torch
from cases import full_masks, images_and_labels, tiny_convnet, tiny_vit
from torch import nn

from ovit_deploy.errors import ModelError
from ovit_deploy.finetune.masks import MaskedOptimizer
from ovit_deploy.quantization import (
    FakeQuantize,
    FixedQuantize,
    calibrate,
    fixed,
    freeze_batch_norm,
    insert,
    is_quantized,
)
from ovit_deploy.recipe.quantization import Quantization

ALL = Quantization(attention_products=True)


def calibrated(quantization: Quantization = ALL) -> nn.Module:
    model = tiny_vit().eval()
    insert(model, quantization)
    calibrate(model, [images_and_labels(16)])
    return model


def test_parameters_keep_their_names_and_stay_the_same_objects() -> None:
    model = tiny_vit()
    before = dict(model.named_parameters())
    insert(model, ALL)
    after = dict(model.named_parameters())
    assert list(before) == list(after)
    assert all(after[name] is before[name] for name in before)


def test_biases_of_the_fixed_model_are_integers_at_the_scale_of_their_product() -> None:
    model = calibrated()
    before = {name: bias.clone() for name, bias in model.named_parameters() if name.endswith("bias")}
    layers = [(name, layer) for name, layer in fixed(model).named_modules() if hasattr(layer, "input_quantizer")]
    assert layers
    for name, layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.bias is not None:
            scale = (layer.input_quantizer.scale * layer.weight_quantizer.scale).double()
            integers = layer.bias.double() / scale
            torch.testing.assert_close(integers, integers.round(), rtol=1e-6, atol=0)
            assert bool(((layer.bias - before[f"{name}.bias"]).abs() <= 0.5001 * scale).all())


def test_the_quantized_model_is_near_the_float_one() -> None:
    images, _ = images_and_labels(16)
    wanted, got = tiny_vit().eval()(images), calibrated()(images)
    assert 0 < (got - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_quantized_attention_without_rounding_is_timms() -> None:
    images, _ = images_and_labels(4)
    model = calibrated()
    for module in model.modules():
        for name, _ in list(module.named_children()):
            if name.endswith("_quantizer"):
                setattr(module, name, nn.Identity())
    torch.testing.assert_close(model(images), tiny_vit().eval()(images))


def test_fixed_scales_give_the_same_answers_and_keep_zeros() -> None:
    images, _ = images_and_labels(4)
    model = calibrated()
    weight = model.get_parameter("blocks.0.mlp.fc1.weight")
    weight.data[:, ::2] = 0
    before = model(images)
    fixed(model)
    torch.testing.assert_close(model(images), before, rtol=0, atol=1e-6)
    assert not weight[:, ::2].any()
    assert not is_quantized(model)
    quantizer = model.get_submodule("blocks.0.mlp.fc1.weight_quantizer")
    assert isinstance(quantizer, FixedQuantize)
    steps = weight / quantizer.scale[:, None]
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)


def test_training_with_masks_leaves_zeros_zero_and_moves_the_rest() -> None:
    model = calibrated(Quantization())
    masks = {name: torch.rand(mask.shape) < 0.5 for name, mask in full_masks(model).items()}
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    MaskedOptimizer(model, optimizer, masks)
    images, labels = images_and_labels(16)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model.train()(images), labels).backward()
        optimizer.step()
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        quantizer = model.get_submodule(name.replace("weight", "weight_quantizer"))
        assert not weight[~mask].any()
        assert not quantizer(weight)[~mask].any()
        assert (weight != before[name])[mask].any()


def test_names_and_classes_choose_layers_and_their_schemes() -> None:
    quantization = Quantization.model_validate(
        {
            "submodules": ["blocks", "patch_embed"],
            "ignore": ["Conv2d", "blocks.1.mlp"],
            "scheme_overrides": {"blocks.0": {"weights": {"num_bits": 4, "symmetric": True}}},
        }
    )
    model = tiny_vit()
    names = insert(model, quantization)
    assert names == [
        f"blocks.{b}.{m}" for b, m in ((0, "attn.qkv"), (0, "attn.proj"), (0, "mlp.fc1"), (0, "mlp.fc2"))
    ] + [
        "blocks.1.attn.qkv",
        "blocks.1.attn.proj",
    ]
    assert model.get_submodule("blocks.0.mlp.fc1.weight_quantizer").scheme.num_bits == 4
    assert model.get_submodule("blocks.1.attn.qkv.weight_quantizer").scheme.num_bits == 8


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"ignore": ["Convv2d"]}, "the model has no 'Convv2d', did you mean 'Conv2d'"),
        ({"submodules": ["blocks.7"]}, "the model has no 'blocks.7'"),
        ({"scheme_overrides": {"LayerNorm": "default"}}, "LayerNorm stays in floating point"),
        ({"ignore": ["Linear", "Conv2d"]}, "quantizes no layer"),
    ],
)
def test_a_choice_that_cannot_be_is_told(keys: dict, told: str) -> None:
    with pytest.raises(ModelError, match=told):
        insert(tiny_vit(), Quantization.model_validate(keys))


def test_a_quantized_model_is_not_quantized_again() -> None:
    with pytest.raises(ModelError, match="quantized already"):
        insert(calibrated(), ALL)


def test_frozen_batch_norms_keep_their_statistics_in_training() -> None:
    model = tiny_convnet()
    freeze_batch_norm(model)
    before = copy.deepcopy(dict(model.named_buffers()))
    model.train()(images_and_labels(8)[0])
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_outputs_of_an_mlps_first_layer_are_rounded_after_its_activation() -> None:
    model = tiny_vit()
    insert(
        model, Quantization.model_validate({"scheme": "tensorrt", "scheme_overrides": {"blocks": "tensorrt_sparse"}})
    )
    rounded = {
        name.removesuffix(".output_quantizer")
        for name, module in model.named_modules()
        if name.endswith("output_quantizer") and isinstance(module, FakeQuantize)
    }
    assert rounded == {f"blocks.{b}.{layer}" for b in (0, 1) for layer in ("attn.qkv", "attn.proj", "mlp.fc2")}


def test_the_products_of_one_attention_have_a_name() -> None:
    every = {"attention_products": True}
    assert "blocks.0.attn.products" in insert(tiny_vit(), Quantization.model_validate(every))
    names = insert(tiny_vit(), Quantization.model_validate(every | {"ignore": ["blocks.0.attn.products"]}))
    assert "blocks.0.attn.qkv" in names
    assert [name for name in names if name.endswith("products")] == ["blocks.1.attn.products"]
    alone = insert(tiny_vit(), Quantization.model_validate(every | {"submodules": ["blocks.1.attn.products"]}))
    assert alone == ["blocks.1.attn.products"]
