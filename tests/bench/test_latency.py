from pathlib import Path

import psutil
import pytest

from ovit_deploy.bench.latency import Settings, Watch, measure_latency
from ovit_deploy.bench.source import Source
from ovit_deploy.bench.subject import Subject, prepare
from ovit_deploy.engines import ENGINES, environments

ONE = Settings(("onnxruntime",), iterations=6, timeout_s=60)


@pytest.fixture
def subject(sparse: Source, tmp_path: Path) -> Subject:
    return prepare(sparse, batch_size=2, seed=0, folder=tmp_path)


def test_every_variant_on_an_engine_is_a_row_with_all_its_figures(subject: Subject) -> None:
    sparse, dense = measure_latency(subject, ONE)
    assert (sparse.weights, dense.weights) == ("75% zeros", "dense twin")
    for row in (sparse, dense):
        assert row.latency
        assert row.latency.num_runs == 6
        assert row.load_s
        assert row.peak_mib
    assert sparse.vs_dense
    assert sparse.vs_dense == sparse.vs_onnxruntime
    assert dense.vs_dense is None


def test_an_engine_that_skips_no_zeros_may_be_left_to_the_dense_form(subject: Subject) -> None:
    settings = Settings(("pytorch", "onnxruntime"), dense_only=("onnxruntime",), iterations=6, timeout_s=60)
    rows = [(row.engine, row.weights) for row in measure_latency(subject, settings)]
    assert rows == [("pytorch", "75% zeros"), ("pytorch", "dense twin"), ("onnxruntime", "dense twin")]


def test_logits_are_compared_with_onnxruntimes_but_not_the_twins(subject: Subject) -> None:
    sparse, dense = measure_latency(subject, ONE)
    assert sparse.agreement
    assert (sparse.agreement.max_abs_difference, sparse.agreement.top1, sparse.agreement.num_images) == (0, 1, 8)
    assert dense.agreement is None


def test_an_engine_that_refuses_the_file_does_not_harm_the_other(save, tmp_path: Path) -> None:
    subject = prepare(Source("new", (save(ir_version=10),)), batch_size=1, seed=0, folder=tmp_path)
    rows = measure_latency(subject, Settings(("deepsparse", "onnxruntime"), iterations=2, timeout_s=60))
    assert [row.error for row in rows[:2]] == ["deepsparse reads ONNX up to IR version 9, the file has 10"] * 2
    assert all(row.latency and row.error is None for row in rows[2:])


def test_no_process_is_left_behind(subject: Subject) -> None:
    measure_latency(subject, ONE)
    assert psutil.Process().children() == []


def test_an_interrupted_benchmark_leaves_no_process_behind(subject: Subject) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_latency(subject, ONE, Watch(on_round=interrupt))
    assert psutil.Process().children() == []


@pytest.mark.skipif(
    not environments.is_complete(environments.location("deepsparse"), ENGINES["deepsparse"].pins),
    reason="DeepSparse is not installed; ovit-deploy bench --engine deepsparse installs it",
)
def test_deepsparse_agrees_with_onnxruntime_on_a_sparse_model(subject: Subject) -> None:
    rows = measure_latency(subject, Settings(("onnxruntime", "deepsparse"), iterations=2, timeout_s=120))
    row = rows[2]
    assert row.error is None
    assert row.agreement
    assert row.agreement.max_abs_difference < 1e-3
    assert row.about["supported_operators"] == 1
    assert row.vs_onnxruntime


def test_one_engine_with_two_settings_is_two_contestants(subject: Subject) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed; pip install 'ovit-deploy[openvino]'")
    names = ("openvino", "openvino:sparse_weights=0.5", "onnxruntime")
    rows = measure_latency(subject, Settings(names, iterations=2, timeout_s=60))
    assert [row.engine for row in rows] == [name for name in names for _ in range(2)]
    assert all(row.error is None for row in rows)
    assert [row.about.get("sparse_weights") for row in rows[::2]] == [1, 0.5, None]
    for row in rows:
        assert row.compile_s
        assert row.load_s > row.compile_s > 0
        assert row.file_mib


def test_a_checkpoint_engine_without_a_checkpoint_loses_its_rows_only(subject: Subject) -> None:
    rows = measure_latency(subject, Settings(("pytorch", "onnxruntime"), iterations=2, timeout_s=60))
    assert ["runs checkpoints" in (row.error or "") for row in rows] == [True, True, False, False]
