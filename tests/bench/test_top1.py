"""Top-1 through engines as part of a benchmark, on labelled images whose answers are known."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from ovit_deploy.accuracy import Accuracy
from ovit_deploy.bench.labelled import Labelled
from ovit_deploy.bench.latency import Settings, measure_latency
from ovit_deploy.bench.source import Source
from ovit_deploy.bench.statistics import mcnemar
from ovit_deploy.bench.subject import Subject, prepare
from ovit_deploy.cli import main
from tests.bench.conftest import classifier

BOTH = Settings(("openvino", "onnxruntime"), iterations=2, timeout_s=60)


class Drawn(Labelled):
    """37 random images, and for each the class that the classifier with 75 % zeros tells, but for the first five."""

    @property
    def name(self) -> str:
        return "37 random images"

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        images = np.random.default_rng(1).standard_normal((37, 3, 4, 4)).astype(np.float32)
        labels = answers(images, zeros=0.75)
        labels[:5] = (labels[:5] + 1) % 10
        yield images[:20], labels[:20]
        yield images[20:], labels[20:]


def answers(images: np.ndarray, *, zeros: float) -> np.ndarray:
    """The classes that the classifier of conftest tells, by numpy in float64."""
    first, second = map(onnx.numpy_helper.to_array, classifier(zeros=zeros, batch=1, ir_version=8).graph.initializer)
    hidden = np.maximum(images.reshape(len(images), -1).astype(np.float64) @ first, 0)
    return (hidden @ second).argmax(axis=1)


def with_images(source: Source, folder: Path) -> Subject:
    subject = prepare(source, batch_size=2, seed=0, folder=folder)
    return replace(subject, labelled=Drawn(None, {}, total=37))  # type: ignore[arg-type]


def test_every_engine_answers_every_image_once_and_a_dense_twin_none(sparse: Source, tmp_path: Path) -> None:
    openvino, _, onnxruntime, twin = measure_latency(with_images(sparse, tmp_path), BOTH)
    assert openvino.accuracy
    assert onnxruntime.accuracy
    expected = Accuracy(32, 37)
    for found in (openvino.accuracy, onnxruntime.accuracy):
        assert (found.correct, found.images, found.data) == (32, 37, "37 random images")
        assert (found.top1, found.interval95) == (expected.top1, expected.interval)
    assert openvino.accuracy.baseline == "onnxruntime, 75% zeros"
    assert (openvino.accuracy.only_here, openvino.accuracy.only_baseline, openvino.accuracy.p_value) == (0, 0, 1.0)
    assert onnxruntime.accuracy.baseline is None
    assert twin.accuracy is None


def test_a_pruned_model_is_compared_with_the_dense_one_where_that_is_measured(save, tmp_path: Path) -> None:
    sparse = save(zeros=0.75).rename(tmp_path / "sparse.onnx")
    subject = with_images(Source("both", (sparse, save(zeros=0.0))), tmp_path)
    pruned, dense = measure_latency(subject, Settings(("onnxruntime",), iterations=2, timeout_s=60))
    images, labels = map(np.concatenate, zip(*subject.labelled.batches(), strict=True))  # type: ignore[union-attr]
    right = [answers(images, zeros=zeros) == labels for zeros in (0.75, 0.0)]
    only_pruned, only_dense = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert pruned.accuracy
    assert dense.accuracy
    assert (pruned.accuracy.only_here, pruned.accuracy.only_baseline) == (only_pruned, only_dense)
    assert pruned.accuracy.p_value == mcnemar(only_pruned, only_dense) < 0.001
    assert (pruned.accuracy.baseline, dense.accuracy.correct) == ("onnxruntime, dense", int(right[1].sum()))


def test_random_weights_have_no_top1(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["bench", "--model", "test_vit", "--top1", "10", "--iterations", "1", "--allow-noise"])
    assert left.value.code == 1
    assert "its weights are random" in capsys.readouterr().err
