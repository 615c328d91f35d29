import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vit_oracle import logits, random_network

from ovit_deploy.engines.sparse.build import LEVELS, library
from ovit_deploy.engines.sparse.library import PLACES, Native, best_level, load
from ovit_deploy.engines.sparse.network import Range
from ovit_deploy.errors import EngineError

pytestmark = pytest.mark.skipif(
    not library("portable").is_file(), reason="the sparse engine is not compiled: no C++ compiler when it was installed"
)
BEST = list(LEVELS).index(best_level()) if library("portable").is_file() else 0
HERE_LEVELS = list(LEVELS)[: BEST + 1]  # the others cannot run on this processor


def images_for(network, batch, seed=0):
    shape = (batch, network.channels, network.height, network.width)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_close(found, wanted, tolerance=1e-4):
    assert np.abs(found - wanted).max() <= tolerance * max(1, np.abs(wanted).max())


@st.composite
def networks(draw, *, integers=False):
    average = draw(st.booleans())
    prefix = draw(st.integers(0 if average else 1, 3))
    return random_network(
        draw(st.integers(0, 99)),
        grid=(draw(st.integers(1, 5)), draw(st.integers(1, 7))),
        patch=draw(st.integers(1, 3)),
        channels=draw(st.sampled_from([1, 3])),
        heads=draw(st.integers(1, 3)),
        width=draw(st.integers(1, 18)),
        hidden=draw(st.integers(1, 40)),
        depth=0 if integers else draw(st.integers(0, 2)),
        prefix=prefix,
        classes=draw(st.integers(1, 9)),
        density=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        integers=integers,
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"])),
        average=average,
        ends=1 if average else draw(st.integers(1, max(1, min(prefix, 2)))),
    )


@settings(max_examples=40, deadline=None)
@given(
    network=networks(),
    batch=st.integers(1, 5),
    form=st.sampled_from(["dense", "sparse"]),
    threads=st.integers(1, 3),
    level=st.sampled_from(HERE_LEVELS),
)
def test_a_network_of_any_shape_and_density_is_what_its_definition_says(network, batch, form, threads, level):
    images = images_for(network, batch)
    found = Native(network, threads=threads, form=form, level=level).run(images)
    assert_close(found, logits(network, images))


@settings(max_examples=25, deadline=None)
@given(network=networks(integers=True), form=st.sampled_from(["dense", "sparse"]), level=st.sampled_from(HERE_LEVELS))
def test_integer_products_are_exact(network, form, level):
    plain = replace(network, norm_pre=None, norm=None, head_norm=None, pooling="token", prefix=network.prefix[:0])
    plain = replace(plain, heads=plain.heads[:1])
    images = images_for(plain, 3)
    # the head's input may fall on the other side of a tie when the embedding differs in its last bit: one step of it
    step = max(0.03 * np.abs(head.weight * head.scale[:, None]).max() for head in plain.heads)
    found = Native(plain, form=form, level=level).run(images)
    difference = np.abs(found - logits(plain, images))
    assert difference.max() <= step + 1e-4 and np.median(difference) < 1e-4


@pytest.mark.parametrize("level", HERE_LEVELS)
@pytest.mark.parametrize("zero_point", [None, 0, 3])
@pytest.mark.parametrize("width", [15, 16])
def test_a_quantized_network_follows_its_definition_up_to_single_steps(level, zero_point, width):
    network = random_network(3, grid=(4, 5), heads=3, width=width, hidden=64, density=0.4, integers=True)
    if zero_point is not None:
        kinds = {"query": Range(0.02, 128), "key": Range(0.03, 120), "probabilities": Range(1 / 252, zero_point)}
        blocks = [
            replace(block, attention=replace(block.attention, **kinds, value=Range(0.03, 127)))
            for block in network.blocks
        ]
        network = replace(network, blocks=tuple(blocks))
    images = images_for(network, 4)
    found, wanted = Native(network, level=level).run(images), logits(network, images)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.9995
    assert np.median(np.abs(found - wanted)) < 0.01 * wanted.std()


def test_every_form_says_how_many_entries_it_holds():
    network = random_network(2, density=0.3)
    held = Native(network, form="sparse").entries()
    assert held[1] == (network.blocks[0].attention.qkv.weight != 0).sum()
    assert set(Native(network, form="dense").entries()) == {None}
    assert len(Native(network).entries()) == len(held)


def test_four_integers_are_one_entry():
    network = random_network(2, heads=2, width=6, density=0.1, integers=True)
    groups = network.blocks[0].attention.qkv.weight.reshape(36, 3, 4)
    assert Native(network, form="sparse").entries()[1] == groups.any(-1).sum()


@pytest.mark.parametrize("level", HERE_LEVELS)
@pytest.mark.parametrize("integers", [False, True])
def test_layers_of_many_blocks_and_bands_and_batches_of_many_panels(integers, level):
    network = random_network(5, grid=(3, 7), heads=5, width=26, hidden=401, depth=1, density=0.3, integers=integers)
    images = images_for(network, 9)
    wanted = logits(network, images)
    for form in ("dense", "sparse"):
        found = Native(network, form=form, level=level, threads=2).run(images)
        assert np.median(np.abs(found - wanted)) < (0.01 if integers else 1e-5) * wanted.std()


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("rest", [1, 8, 9])
@pytest.mark.parametrize("vectors", range(8))
def test_half_a_vector_at_the_end_follows_any_number_of_whole_ones(vectors, rest, form):
    network = random_network(6, grid=(1, 16 * vectors + rest), prefix=0, average=True, depth=1)
    images = images_for(network, 2)
    assert_close(Native(network, form=form).run(images), logits(network, images))


def test_a_profile_has_a_time_for_every_place():
    network = random_network(4, grid=(6, 6))
    seconds = Native(network, threads=2).profile(images_for(network, 3))
    assert len(seconds) == 2 + len(PLACES) * len(network.blocks)
    assert (seconds > 0).all()


def test_runs_at_the_same_time_do_not_disturb_each_other():
    network = random_network(4, grid=(6, 6), heads=2, width=16, hidden=64)
    native = Native(network, threads=2)
    batches = [images_for(network, batch, seed=batch) for batch in (1, 2, 3, 4)]
    alone = [native.run(images) for images in batches]
    wrong = []

    def work(images, wanted):
        wrong.extend(1 for _ in range(20) if not np.array_equal(native.run(images), wanted))

    workers = [threading.Thread(target=work, args=pair) for pair in zip(batches, alone, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize(
    "lie",
    [
        lambda n: replace(n, position=n.position[1:]),
        lambda n: replace(n, prefix=n.prefix[:, 1:]),
        lambda n: replace(n, heads=()),
        lambda n: replace(n, embedding=replace(n.embedding, bias=n.embedding.bias[1:])),
        lambda n: replace(n, norm=replace(n.norm, bias=n.norm.bias[1:])),
        lambda n: replace(n, height=n.height + 1),
        lambda n: replace(n, blocks=(replace(n.blocks[0], attention=replace(n.blocks[0].attention, heads=3)),)),
        lambda n: replace(n, blocks=(replace(n.blocks[0], attention=replace(n.blocks[0].attention, key=Range(1, 0))),)),
        lambda n: replace(n, blocks=(replace(n.blocks[0], mlp=replace(n.blocks[0].mlp, fc1=n.blocks[0].mlp.fc2)),)),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(lie):
    with pytest.raises(EngineError, match="do not go together"):
        Native(lie(random_network(1)))


def test_images_of_another_size_are_refused_and_none_are_none():
    network = random_network(1)
    native = Native(network)
    assert native.run(images_for(network, 0)).shape == (0, 4)
    with pytest.raises(EngineError, match=r"images of shape \(1, 3, 9, 9\)"):
        native.run(np.zeros((1, 3, 9, 9), np.float32))


def test_without_its_library_the_engine_says_how_to_get_it(tmp_path):
    load.cache_clear()
    with pytest.raises(EngineError, match="not compiled") as caught:
        Native(random_network(1), folder=tmp_path)
    assert "compiler" in caught.value.hint
