import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from ovit_deploy.errors import ExportError
from ovit_deploy.export.profile import Profile
from ovit_deploy.export.verify import check_answers, check_format, check_zeros, verify

PRUNED = "blocks.0.mlp.fc1.weight"


def changed(source: Path, folder: Path, name: str, place: tuple[int, int], value: float) -> Path:
    """A copy of an ONNX file with one weight set."""
    model = ir.load(source)
    weight = model.graph.initializers[name].const_value.numpy().copy()
    weight[place] = value
    model.graph.initializers[name].const_value = ir.tensor(weight, name=name)
    ir.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def place_of_zero(source: Path, *, zero: bool) -> tuple[int, int]:
    weight = ir.load(source).graph.initializers[PRUNED].const_value.numpy()
    return tuple(np.argwhere((weight == 0) == zero)[0])


def test_a_true_file_is_accepted(
    fast_file: Path, model: nn.Module, images: Tensor, masks: dict[str, Tensor], profile: Profile
) -> None:
    checked = verify(fast_file, model, images, masks=masks, profile=profile)
    assert checked.num_images == 40
    assert 0 < checked.max_abs_difference < 1e-5
    assert checked.top1_agreement == 1.0
    torch.testing.assert_close(checked.logits, model(images))


@pytest.mark.parametrize("zero", [True, False])
def test_a_zero_more_or_less_is_found_and_named(
    zero: bool, fast_file: Path, model: nn.Module, masks: dict[str, Tensor], tmp_path: Path
) -> None:
    zeros = int((model.get_parameter(PRUNED) == 0).sum())
    wrong = changed(fast_file, tmp_path, PRUNED, place_of_zero(fast_file, zero=zero), 1e-30 if zero else 0.0)
    message = f"{PRUNED}: {zeros} zeros in the model, {zeros - 1 if zero else zeros + 1} in model.onnx"
    with pytest.raises(ExportError, match=message):
        check_zeros(wrong, model, masks)


def test_a_pruned_weight_that_grew_again_is_found(fast_file: Path, model: nn.Module, masks: dict[str, Tensor]) -> None:
    masks = masks | {PRUNED: torch.zeros_like(masks[PRUNED])}
    with pytest.raises(ExportError, match=f"{PRUNED}: a pruned weight is not zero in the model"):
        check_zeros(fast_file, model, masks)


def test_a_mask_of_another_model_is_refused(fast_file: Path, model: nn.Module) -> None:
    with pytest.raises(ExportError, match=r"blocks\.9: the mask fits no weight"):
        check_zeros(fast_file, model, {"blocks.9": torch.ones(1, dtype=torch.bool)})


def test_a_renamed_weight_is_missed(
    fast_file: Path, model: nn.Module, masks: dict[str, Tensor], tmp_path: Path
) -> None:
    graph = ir.load(fast_file)
    graph.graph.initializers[PRUNED].name = "w"
    ir.save(graph, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=f"{PRUNED}: not in model.onnx under this name"):
        check_zeros(tmp_path / "model.onnx", model, masks)


def test_a_changed_weight_is_found_by_the_logits(
    fast_file: Path, model: nn.Module, images: Tensor, masks: dict[str, Tensor], profile: Profile, tmp_path: Path
) -> None:
    wrong = changed(fast_file, tmp_path, PRUNED, place_of_zero(fast_file, zero=False), 9.0)
    with pytest.raises(ExportError, match=r"logits differ by .*, more than 0\.0001") as error:
        verify(wrong, model, images, masks=masks, profile=profile)
    assert "tolerance in profile deepsparse" in error.value.hint


@pytest.mark.parametrize(("largest", "least", "most"), [(0.5, 9e-5, 1.1e-4), (40.0, 3.6e-3, 4.4e-3)])
def test_the_tolerance_is_a_fraction_of_large_logits(
    largest: float, least: float, most: float, profile: Profile, tmp_path: Path
) -> None:
    logits = torch.tensor([[largest, -largest / 2]])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("images", "logits")]
    for differ in (least, most):
        stored = numpy_helper.from_array(np.array(differ, np.float32), "by")
        moved = [helper.make_node("Add", ["images", "by"], ["logits"])]
        graph = helper.make_graph(moved, "moved", ends[:1], ends[1:], [stored])
        opset = helper.make_opsetid("", profile.opset)
        onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[opset]), tmp_path / f"{differ}.onnx")
    check = partial(check_answers, images=logits, logits=logits, batch_size=1, profile=profile, level="ORT_ENABLE_ALL")
    assert check(tmp_path / f"{least}.onnx").max_abs_difference == pytest.approx(least, rel=1e-2)
    with pytest.raises(ExportError, match="logits differ by"):
        check(tmp_path / f"{most}.onnx")


def test_not_a_number_is_not_within_the_tolerance(
    fast_file: Path, model: nn.Module, images: Tensor, masks: dict[str, Tensor], profile: Profile, tmp_path: Path
) -> None:
    wrong = changed(fast_file, tmp_path, PRUNED, place_of_zero(fast_file, zero=False), float("nan"))
    with pytest.raises(ExportError, match="logits differ by nan"):
        verify(wrong, model, images, masks=masks, profile=profile)


def test_another_class_is_found_even_within_the_tolerance(
    fast_file: Path, model: nn.Module, images: Tensor, masks: dict[str, Tensor], profile: Profile, tmp_path: Path
) -> None:
    wrong = changed(fast_file, tmp_path, PRUNED, place_of_zero(fast_file, zero=False), 9.0)
    with pytest.raises(ExportError, match="of 32 images get another class in ONNX Runtime at ORT_DISABLE_ALL"):
        verify(wrong, model, images, masks=masks, profile=profile.model_copy(update={"tolerance": 1e9}))


def test_a_file_that_breaks_the_standard_is_refused(fast_file: Path, tmp_path: Path) -> None:
    proto = onnx.load(fast_file)
    proto.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="breaks the ONNX standard"):
        check_format(tmp_path / "model.onnx")


def test_a_fixed_batch_takes_whole_batches_only(
    fast_file: Path, model: nn.Module, images: Tensor, masks: dict[str, Tensor], profile: Profile, tmp_path: Path
) -> None:
    fixed = profile.model_copy(update={"batch": 16})
    checked = verify(shutil.copy(fast_file, tmp_path / "m.onnx"), model, images, masks=masks, profile=fixed)
    assert checked.num_images == 32
    with pytest.raises(ExportError, match="no images to verify with"):
        verify(fast_file, model, images[:15], masks=masks, profile=fixed)
