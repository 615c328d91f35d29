import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovit_deploy.engines.selection import Selection


@given(
    st.sampled_from([None, "f32", "bf16"]),
    st.sampled_from([None, 0.0, 0.25, 0.5, 1.0]),
)
def test_a_selection_is_read_as_it_is_written(precision: str | None, rate: float | None) -> None:
    given = tuple((k, v) for k, v in (("precision", precision), ("sparse_weights", rate)) if v is not None)
    assert Selection.parse(str(Selection("openvino", given))) == Selection("openvino", given)


def test_options_that_are_not_given_have_their_defaults() -> None:
    assert Selection.parse("openvino:sparse_weights=0.5").options == {"precision": "f32", "sparse_weights": 0.5}
    assert Selection.parse("pytorch:compile=true").options == {"precision": "f32", "compile": True}
    assert Selection.parse("onnxruntime").options == {"provider": "cpu"}


def test_only_less_than_float32_rounds() -> None:
    assert Selection.parse("openvino:precision=bf16").rounds
    assert not Selection.parse("openvino:precision=f32").rounds
    assert not Selection.parse("pytorch:compile=true").rounds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tensorflow", "no engine 'tensorflow', there are onnxruntime"),
        ("onnxruntime:precision=bf16", "onnxruntime has no option 'precision', its options: provider"),
        ("openvino:speed=1", "openvino has no option 'speed', its options: precision, sparse_weights"),
        ("openvino:", "openvino has no option ''"),
        ("openvino:precision=int4", "precision must be f32 or bf16, not 'int4'"),
        ("openvino:sparse_weights=2", "sparse_weights must be a number from 0 to 1, not '2'"),
        ("openvino:sparse_weights=nan", "sparse_weights must be a number from 0 to 1"),
        ("pytorch:compile=yes", "compile must be true or false, not 'yes'"),
    ],
)
def test_a_mistake_says_what_there_is(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected.replace("?", r"\?")):
        Selection.parse(text)
