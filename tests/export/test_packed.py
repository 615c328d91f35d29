"""The compact container: back bit by bit, small, and no damaged one taken for whole."""

import contextlib
import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from ovit_deploy.cli import main
from ovit_deploy.errors import ExportError
from ovit_deploy.export.packed import pack, unpack


def onnx_file(sparsity: float, *, integers: bool, zero_point: int = 0, size: int = 256) -> bytes:
    """Weights of the proportions of a DeiT's blocks, and a few small tensors around them."""
    draw = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(draw.standard_normal(8).astype(np.float32), "bias")]
    for name, columns in (("qkv", 3), ("proj", 1), ("fc1", 4), ("fc2", 4)):
        weight = draw.standard_normal((size, columns * size)).astype(np.float32)
        weight[np.abs(weight) < np.quantile(np.abs(weight), sparsity)] = 0
        if integers:
            kind = np.uint8 if zero_point else np.int8
            weight = (np.rint(weight / (np.abs(weight).max(0) / 127)) + zero_point).astype(kind)
        tensors.append(numpy_helper.from_array(weight, name))
    node = helper.make_node("Identity", ["bias"], ["logits"])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [8])
    return helper.make_model(helper.make_graph([node], "g", [], [output], tensors)).SerializeToString()


SMALL = onnx_file(0.9, integers=False, size=16)
PACKED = pack(SMALL)


@pytest.mark.parametrize(("integers", "least"), [(False, 7), (True, 15)])
def test_a_file_with_nine_of_ten_weights_zero_is_a_fraction_of_the_dense_one(integers: bool, least: float) -> None:
    dense = len(onnx_file(0.0, integers=False))
    content = onnx_file(0.9, integers=integers)
    packed = pack(content)
    assert unpack(packed) == content
    assert len(packed) * least < dense


def test_zeros_are_left_out_whatever_the_zero_point() -> None:
    around_0, around_128 = (pack(onnx_file(0.9, integers=True, zero_point=point)) for point in (0, 128))
    assert len(around_128) < 1.02 * len(around_0)


def test_every_bit_of_a_float_comes_back() -> None:
    patterns = np.array([0x80000000, 0x7FC00001, 0xFF800000, 1, 0] * 100, np.uint32)  # -0.0, a NaN, -inf, denormal
    tensor = numpy_helper.from_array(patterns.view(np.float32), "w")
    node = helper.make_node("Identity", ["w"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [500])
    content = helper.make_model(helper.make_graph([node], "g", [], [output], [tensor])).SerializeToString()
    assert unpack(pack(content)) == content


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(PACKED) - 1))
def test_a_file_that_was_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ExportError, match="not a whole container"):
        unpack(PACKED[:length])


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_a_damaged_byte_is_refused_or_without_effect(place: int, change: int) -> None:
    damaged = bytearray(PACKED)
    damaged[place] ^= change
    with contextlib.suppress(ExportError):
        assert unpack(bytes(damaged)) == SMALL  # a byte of ZIP's own that means nothing


def lying(**changes: object) -> bytes:
    """The container with another manifest."""
    written = BytesIO()
    with zipfile.ZipFile(BytesIO(PACKED)) as old, zipfile.ZipFile(written, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "manifest.json":
                content = json.dumps(json.loads(content) | changes).encode()
            new.writestr(name, content)
    return written.getvalue()


REGION = {"start": 0, "count": 64, "width": 4, "empty": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 2**40},
        {"size": 10},
        {"format": 2},
        {"regions": []},
        {"regions": [REGION | {"count": 2**31 - 1}]},
        {"regions": [REGION | {"width": 3}]},
        {"regions": [REGION | {"start": -1}]},
        {"regions": [REGION | {"start": 2**30}]},
        {"regions": [REGION | {"empty": 2**64}]},
        {"regions": "all"},
        {"sha256": "0" * 64},
    ],
)
def test_a_manifest_that_lies_is_refused(changes: dict[str, object]) -> None:
    assert unpack(lying()) == SMALL
    with pytest.raises(ExportError, match="not a whole container|not those it was made of"):
        unpack(lying(**changes))


def test_what_is_not_onnx_or_keeps_its_weights_elsewhere_is_refused() -> None:
    with pytest.raises(ExportError, match="not an ONNX file"):
        pack(b"\xff not a model")
    model = onnx.ModelProto.FromString(SMALL)
    model.graph.initializer[1].data_location = TensorProto.EXTERNAL
    with pytest.raises(ExportError, match="qkv: its values are in another file"):
        pack(model.SerializeToString())


def test_the_command_writes_the_file_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def code(*arguments: str) -> int:
        with pytest.raises(SystemExit) as exit_:
            main(["expand", *arguments])
        return int(exit_.value.code or 0)

    packed = tmp_path / "model.onnx.packed"
    packed.write_bytes(PACKED)
    assert code(str(packed)) == 0
    assert (tmp_path / "model.onnx").read_bytes() == SMALL
    (tmp_path / "model.onnx").write_bytes(b"another")
    assert code(str(packed)) == 1
    assert "is another file" in capsys.readouterr().err
    assert code(str(tmp_path / "none.packed")) == 1
    packed.write_bytes(PACKED[:-1])
    assert code(str(packed), "--output", str(tmp_path / "other.onnx")) == 1
    assert "not a whole container" in capsys.readouterr().err
    assert not (tmp_path / "other.onnx").exists()
