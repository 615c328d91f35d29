from pathlib import Path

import pytest

from ovit_deploy.bench.suite import LatencySuite, PrunerMemorySuite, PrunerSuite, load_suite, override
from ovit_deploy.errors import OvitError


def test_the_shipped_suites_are_read() -> None:
    assert load_suite("cpu_latency").engines == ("onnxruntime", "deepsparse")
    integers = load_suite("int8_latency")
    assert isinstance(integers, LatencySuite)
    assert (integers.precisions, integers.beside_float) == (("int8",), True)
    pruner = load_suite("pruner")
    assert isinstance(pruner, PrunerSuite)
    assert (pruner.blocks, pruner.block_size) == (2304, 192)
    assert pruner.step and (pruner.step.model, pruner.step.num_grads) == ("deit_tiny_patch16_224", 256)
    memory = load_suite("pruner_memory")
    assert isinstance(memory, PrunerMemorySuite)
    assert memory.budgets_gb == (1, 2, 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kind: latency\nengine: [onnxruntime]\n", "s.yaml:2:1: LatencySuite has no key engine, did you mean engines?"),
        ("kind: latency\nengines: [tensorflow]\n", "s.yaml:2:11: engines.0: no engine 'tensorflow'"),
        ("kind: latency\nthreads: [0]\n", "s.yaml:2:11: threads.0: Input should be greater than 0, not 0"),
        ("kind: speed\n", "s.yaml:1:1: kind must be latency or pruner or pruner_memory, not 'speed'"),
        ("- latency\n", "kind must be latency or pruner"),
        ("kind: pruner\nblocks: 4\n", "block_size: Field required"),
        ("kind: pruner_memory\nbudgets_gb: [1]\nstep: {layers: all}\n", "step.model: Field required"),
        ("kind: [\n", "s.yaml:2"),
        ("kind: latency\nengines: []\n", "engines: give at least one"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(OvitError) as raised:
        load_suite(tmp_path / "s.yaml")
    assert expected in raised.value.message


def test_flags_override_a_suite() -> None:
    assert override(LatencySuite(iterations=50), {"iterations": 3}).iterations == 3


def test_a_flag_out_of_range_is_refused() -> None:
    with pytest.raises(OvitError, match="batch_sizes.0: Input should be greater than 0, not 0"):
        override(LatencySuite(), {"batch_sizes": (0,)})


def test_a_flag_that_a_pruner_suite_does_not_know_is_refused() -> None:
    with pytest.raises(OvitError, match="PrunerSuite has no key engines"):
        override(load_suite("pruner"), {"engines": ("onnxruntime",)})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"processes": 8, "iterations": 4}, "4 iterations are too few for 8 processes"),
        ({"rate": 5.0}, "rate is for scenario: server"),
        ({"streams": 2, "scenario": "server"}, "streams is for scenario: offline"),
        ({"scenario": "multi_stream"}, "scenario: Input should be 'single_stream', 'offline' or 'server'"),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, object], expected: str) -> None:
    with pytest.raises(OvitError) as raised:
        override(LatencySuite(), values)
    assert expected in raised.value.message
