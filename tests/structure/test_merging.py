"""Tokens merged: against the paper's words in a plain loop, without effect where it must have none, and exported."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structure_cases import small_vit
from torch import nn

from ovit_deploy import models
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.errors import ModelError
from ovit_deploy.export.profile import load_profile
from ovit_deploy.export.to_onnx import to_onnx
from ovit_deploy.quantization import insert
from ovit_deploy.recipe.merging import TokenMergingModifier
from ovit_deploy.recipe.quantization import Quantization
from ovit_deploy.structure import macs, merge_tokens, merging_of
from ovit_deploy.structure.merging import merged


def plainly(x_ND, sizes, keys, count, num_prefix):
    """Bipartite soft matching of one image, token by token."""
    unit = keys / keys.norm(dim=1, keepdim=True)
    a, b = list(range(0, len(x_ND), 2)), list(range(1, len(x_ND), 2))
    partner = {i: max(b, key=lambda j, i=i: float(unit[i] @ unit[j])) for i in a if i >= num_prefix}
    ranked = sorted(partner, key=lambda i: float(unit[i] @ unit[partner[i]]))
    gone = ranked[len(ranked) - count :]
    groups = {j: [j] for j in b}
    for i in gone:
        groups[partner[i]].append(i)
    stay = [[i] for i in range(num_prefix)] + [[i] for i in ranked[: len(ranked) - count]]
    members = stay + [groups[j] for j in b]
    means = [sum(x_ND[i] * sizes[i] for i in own) / sum(sizes[i] for i in own) for own in members]
    places = {i: place for place, own in enumerate(members) for i in own}
    return (
        torch.stack(means),
        [float(sum(sizes[i] for i in own)) for own in members],
        [places[i] for i in range(len(x_ND))],
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 15), st.integers(0, 1), st.integers(0, 1000), st.data())
def test_merging_is_bipartite_soft_matching(num_tokens, num_prefix, seed, data) -> None:
    count = data.draw(st.integers(1, (num_tokens - num_prefix) // 2))
    draw = torch.Generator().manual_seed(seed)
    x, keys = (torch.randn(2, num_tokens, 3, generator=draw, dtype=torch.float64) for _ in range(2))
    sizes = torch.randint(1, 4, (2, num_tokens, 1), generator=draw).double()
    found, new_sizes, places = merged(x, sizes, keys, count, num_prefix)
    for image in range(2):
        means, counted, wanted = plainly(x[image], sizes[image, :, 0], keys[image], count, num_prefix)
        torch.testing.assert_close(found[image], means)
        assert new_sizes[image, :, 0].tolist() == counted and places[image].tolist() == wanted


IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
KINDS = {"class token": {}, "averaged": {"class_token": False, "global_pool": "avg"}}


def model_of(kind: str) -> nn.Module:
    return small_vit(img_size=32, **KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_merging_nothing_changes_nothing(kind) -> None:
    model = model_of(kind)
    wanted = model(IMAGES)
    merge_tokens(model, {0: 0})
    torch.testing.assert_close(model(IMAGES), wanted, rtol=0, atol=1e-5)


def test_merging_copies_changes_nothing() -> None:
    """Without positions, patches that are alike are the same token; which of them are merged does not matter."""
    model = model_of("averaged")
    with torch.no_grad():
        model.pos_embed.zero_()
    images = IMAGES[:, :, :, :8].repeat(1, 1, 1, 4)  # four kinds of patches, each four times
    wanted = model(images)
    merge_tokens(model, {0: 4, 1: 2})
    torch.testing.assert_close(model(images), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", ["deepsparse", "onnxruntime"])
def test_the_exported_graph_merges_alike(kind, profile) -> None:
    model = model_of(kind)
    merge_tokens(model, {0: 4, 1: 3, 2: 2})
    proto = onnx_ir.to_proto(to_onnx(model, IMAGES, profile=load_profile(profile)))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": IMAGES.numpy()})
    np.testing.assert_allclose(found, model(IMAGES).detach().numpy(), rtol=0, atol=1e-4)


def test_openvino_merges_alike(tmp_path) -> None:
    openvino = pytest.importorskip("openvino")
    model = model_of("class token")
    merge_tokens(model, {0: 4, 1: 3})
    onnx_ir.save(to_onnx(model, IMAGES, profile=load_profile("openvino")), tmp_path / "merged.onnx")
    compiled = openvino.Core().compile_model(tmp_path / "merged.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(IMAGES.numpy())[0]
    np.testing.assert_allclose(found, model(IMAGES).detach().numpy(), rtol=0, atol=1e-3)


def test_a_checkpoint_carries_it_as_data() -> None:
    spec = ModelSpec("vit_tiny_patch16_224", {"depth": 2}, token_merging={"0": 8, "1": 4})
    again = models.outline(ModelSpec.from_json(spec.to_json()))
    assert merging_of(again) == {"0": 8, "1": 4}
    assert (
        dict(again.named_parameters()).keys()
        == dict(models.outline(ModelSpec(spec.name, {"depth": 2})).named_parameters()).keys()
    )


def test_schedules() -> None:
    assert TokenMergingModifier(tokens=8).per_block([0, 1, 3]) == {0: 8, 1: 8, 3: 8}
    assert TokenMergingModifier(tokens=8, schedule="decreasing").per_block([0, 1, 2]) == {0: 16, 1: 8, 2: 0}


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(ModelError, match="2 tokens beside those of patches"):
        merge_tokens(small_vit("distilled"), {0: 1})
    with pytest.raises(ModelError, match="VisionTransformer only"):
        merge_tokens(timm.create_model("resnet18"), {0: 1})
    model = small_vit()
    merge_tokens(model, {0: 1})
    with pytest.raises(ModelError, match="its tokens are merged"):
        macs(model)
    insert(model, Quantization(attention_products=True))
    with pytest.raises(ModelError, match="cannot be merged with attention QuantizedAttention"):
        model(torch.zeros(1, 3, 16, 16))
