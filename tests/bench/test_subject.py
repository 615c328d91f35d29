from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ovit_deploy.bench.contestant import Contestant
from ovit_deploy.bench.latency import Settings, measure_latency
from ovit_deploy.bench.source import Source, from_file, from_run
from ovit_deploy.bench.subject import prepare
from ovit_deploy.checkpoint import ModelSpec, load_tensors, read_header, save_tensors
from ovit_deploy.errors import DataError, RunError


def test_a_sparse_file_gets_a_dense_twin(sparse: Source, tmp_path: Path) -> None:
    subject = prepare(sparse, batch_size=2, seed=0, folder=tmp_path)
    assert [variant.weights for variant in subject.variants] == ["75% zeros", "dense twin"]
    assert subject.dense is subject.variants[1]


def test_files_with_nearly_the_same_zeros_are_all_measured(save, tmp_path: Path) -> None:
    files = tuple(save(zeros=zeros).rename(tmp_path / f"{zeros}.onnx") for zeros in (0.75, 0.7505))
    subject = prepare(Source("close", files), batch_size=1, seed=0, folder=tmp_path)
    rows = measure_latency(subject, Settings(("onnxruntime",), iterations=1))
    assert [row.latency is not None for row in rows] == [True] * 3


def test_a_dense_file_is_its_own_dense_one(save, tmp_path: Path) -> None:
    subject = prepare(Source("dense", (save(zeros=0),)), batch_size=1, seed=0, folder=tmp_path)
    assert [variant.weights for variant in subject.variants] == ["dense"]
    assert subject.dense is subject.variants[0]


def test_variants_have_the_batch_size_that_was_asked_for(sparse: Source, tmp_path: Path) -> None:
    for variant in prepare(sparse, batch_size=3, seed=0, folder=tmp_path).variants:
        assert onnx.load(variant.path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_an_engine_gets_its_own_form_of_the_file_and_of_the_twin(save, tmp_path: Path) -> None:
    file, other = (save().rename(tmp_path / f"{name}.onnx") for name in ("file", "other"))
    source = Source("two forms", (file,), forms=({"deepsparse": other},))
    subject = prepare(source, batch_size=3, seed=0, folder=tmp_path)
    for variant in subject.variants:
        assert Contestant("onnxruntime", variant).file == variant.path
        own = Contestant("deepsparse", variant).file
        assert own != variant.path
        assert onnx.load(own).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_the_dense_model_in_float32_is_timed_beside_integers_and_is_not_their_dense_one(save, tmp_path: Path) -> None:
    sparse, dense = save().rename(tmp_path / "sparse.onnx"), save(zeros=0).rename(tmp_path / "dense.onnx")
    subject = prepare(Source("both", (sparse,), float_dense=dense), batch_size=1, seed=0, folder=tmp_path)
    assert [variant.weights for variant in subject.variants] == ["75% zeros", "dense twin", "dense float32"]
    assert subject.dense is subject.variants[1]
    assert subject.float_dense is subject.variants[2]
    ours, twin, reference = measure_latency(subject, Settings(("onnxruntime",), iterations=2))
    assert ours.vs_float and twin.vs_float and ours.vs_dense
    assert (reference.vs_float, reference.vs_dense) == (None, None)


def test_images_fill_whole_batches(sparse: Source, tmp_path: Path) -> None:
    images = np.load(prepare(sparse, batch_size=3, seed=0, folder=tmp_path).images)
    assert images.shape == (9, 3, 4, 4)
    assert images.dtype == np.float32


def test_the_sample_images_of_an_export_are_taken(save, tmp_path: Path) -> None:
    samples = tmp_path / "sample-inputs"
    samples.mkdir()
    stored = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    for number, image in enumerate(stored):
        np.savez(samples / f"inp-{number:04}.npz", image[None])
    subject = prepare(from_file(save()), batch_size=2, seed=0, folder=tmp_path)
    np.testing.assert_array_equal(np.load(subject.images), stored)
    assert subject.inputs == "2 images from sample-inputs"


def test_sample_images_of_another_size_are_refused(save, tmp_path: Path) -> None:
    (tmp_path / "sample-inputs").mkdir()
    np.savez(tmp_path / "sample-inputs" / "inp-0000.npz", np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(DataError, match=r"inp-0000\.npz: \(1, 3, 8, 8\), the graph wants \(3, 4, 4\)"):
        prepare(from_file(save()), batch_size=1, seed=0, folder=tmp_path)


def _export(folder: Path, save) -> Path:
    (folder / "deployment").mkdir(parents=True)
    save().rename(folder / "deployment" / "model.onnx")
    (folder / "deployment" / "model.json").write_text("{}")
    return folder / "deployment"


def test_without_a_name_the_newest_export_is_taken_and_its_run_gets_the_result(save, tmp_path: Path) -> None:
    deployment = _export(tmp_path / "runs" / "first", save)
    source = from_run(None, tmp_path / "runs")
    assert source.files == (deployment / "model.onnx",)
    assert source.home == tmp_path / "runs" / "first"


def test_a_run_without_export_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no export there") as raised:
        from_run("mine", tmp_path)
    assert "ovit-deploy export --onnx" in raised.value.hint


def test_an_export_of_a_run_comes_with_its_checkpoint_and_its_twin(save, tmp_path: Path) -> None:
    deployment = tmp_path / "runs" / "mine" / "deployment"
    deployment.mkdir(parents=True)
    save().rename(deployment / "model.onnx")
    (deployment / "model.json").write_text("{}")
    weights = torch.eye(8)
    save_tensors(deployment.parent / "model.safetensors", {"weight": weights}, ModelSpec("some_vit"))
    source = from_file(deployment / "model.onnx")
    without = prepare(source, batch_size=1, seed=0, folder=tmp_path)
    assert [variant.checkpoint for variant in without.variants] == [None, None]
    sparse, twin = prepare(source, batch_size=1, seed=0, folder=tmp_path, with_checkpoints=True).variants
    assert sparse.checkpoint == deployment.parent / "model.safetensors"
    assert twin.checkpoint
    filled = load_tensors(twin.checkpoint)["weight"]
    assert (filled != 0).all()
    assert torch.equal(filled.diag(), weights.diag())
    header = read_header(twin.checkpoint)
    assert header.spec == ModelSpec("some_vit")
