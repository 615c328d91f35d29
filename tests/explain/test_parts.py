"""Parts removed for a time: made-up curves for the choice, a real engine for the measurement."""

import pytest
from cases import tiny_calibration, tiny_vit

from ovit_deploy import models
from ovit_deploy.bench.latency import Watch
from ovit_deploy.checkpoint import ModelSpec
from ovit_deploy.errors import PruningError
from ovit_deploy.explain.forms import Form
from ovit_deploy.explain.parts import latency_of_parts, predicted_ms, rising, spaced, thinned_to
from ovit_deploy.explain.pieces import Workshop
from ovit_deploy.explain.session import Bench, Settings
from ovit_deploy.finetune.thinning import choose, times_of
from ovit_deploy.pruning.structured import Budget
from ovit_deploy.recipe import load_recipe
from ovit_deploy.recipe.structured import HeadWidthPruningModifier, Latency
from ovit_deploy.structure import remove, structure_of

RECIPE = """
modifiers:
  - !HeadWidthPruningModifier
    final_sparsity: 0.5
    start_epoch: 0
    end_epoch: 0
    saliency: magnitude
    multiple_of: 16
"""
# The last head is free to keep, and widths between 64 and 128 cost the same.
LATENCY = Latency(
    engine="onnxruntime",
    batch_size=1,
    threads=1,
    heads_ms={1: 0, 2: 0},
    width_ms={32: 0, 64: 3, 128: 3},
    block_ms=1,
    rest_ms=2,
)


def test_a_choice_by_time_takes_what_saves_time(tmp_path) -> None:
    path = tmp_path / "parts.yaml"
    path.write_text(RECIPE)
    model = tiny_vit()
    found = thinned_to(load_recipe(path), LATENCY, model, 7.0)
    assert found.dense_ms == predicted_ms(LATENCY, model) == 10
    again = tmp_path / "again.yaml"
    again.write_text(found.recipe.text)
    (modifier,) = load_recipe(again).modifiers
    assert isinstance(modifier, HeadWidthPruningModifier)
    assert modifier.latency == LATENCY and modifier.final_sparsity == pytest.approx(0.3, abs=1e-5)
    prices = times_of(LATENCY)
    cost = prices.of(structure_of(model))
    budget = Budget(prices, cost, round(cost * (1 - modifier.final_sparsity)))
    remove(model, choose(model, modifier, budget, tiny_calibration()).kept)
    assert predicted_ms(LATENCY, model) <= 7.0
    assert {block.heads for block in structure_of(model).blocks} == {2}
    assert {block.width for block in structure_of(model).blocks} <= {128, 48, 32}


def test_a_time_that_is_there_already_is_refused(tmp_path) -> None:
    path = tmp_path / "parts.yaml"
    path.write_text(RECIPE)
    with pytest.raises(PruningError, match="need no pruning"):
        thinned_to(load_recipe(path), LATENCY, tiny_vit(), 10.0)


def test_curves_rise_and_are_sampled_up_to_the_whole() -> None:
    assert rising({1: 2.0, 2: 1.5, 4: 3.0}) == {1: 0, 2: 0, 4: 1}
    assert spaced(3, 1) == [1, 2, 3]
    assert spaced(1536, 32)[0] == 32 and spaced(1536, 32)[-1] == 1536
    assert all(width % 32 == 0 for width in spaced(1536, 32))
    assert spaced(20, 32) == [20]


def test_parts_are_timed_on_an_engine(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OVIT_DEPLOY_CACHE", str(tmp_path))
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    model = models.build(models.Choice(ModelSpec("vit_tiny_patch16_224", sizes)))
    bench = Bench(Workshop(model, tmp_path, batch_size=2, seed=0), Settings(1, duration_s=0.05), Watch(lambda _: None))
    latency = latency_of_parts(bench, Form("onnxruntime"), multiple_of=64)
    assert list(latency.heads_ms) == [1, 2] and list(latency.width_ms) == [64, 128]
    assert list(latency.heads_ms.values()) == sorted(latency.heads_ms.values())
    assert predicted_ms(latency, model) > 0
