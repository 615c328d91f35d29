import numpy as np
import onnx_ir as ir
import pytest
from export_cases import answers, copy_of
from torch import Tensor

from ovit_deploy.errors import ExportError
from ovit_deploy.export import passes
from ovit_deploy.export.passes.fold_weights import is_of_weight
from ovit_deploy.export.passes.graph import nodes, number
from ovit_deploy.export.profile import Profile, load_profile
from ovit_deploy.export.zeros import count_zeros

# Passes of quantized graphs have their tests in test_quantized.py.
FLOAT = load_profile("deepsparse").passes


@pytest.fixture(scope="module")
def stages(raw: ir.Model, profile: Profile) -> dict[str, tuple[ir.Model, ir.Model]]:
    """Every pass of the profile with the graph before and after it."""
    found, before = {}, raw
    for name in profile.passes:
        after = passes.apply(copy_of(before), [name])
        found[name] = (before, after)
        before = after
    return found


def test_every_pass_is_used_by_a_shipped_profile(profile: Profile) -> None:
    int8, tensorrt = (set(load_profile(name).passes) for name in ("deepsparse_int8", "tensorrt_int8"))
    assert set(profile.passes) < int8
    assert int8 | tensorrt == set(passes.PASSES)


@pytest.mark.parametrize("name", FLOAT)
def test_a_pass_keeps_the_answers(name: str, stages: dict, images: Tensor) -> None:
    before, after = stages[name]
    np.testing.assert_allclose(answers(after, images), answers(before, images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FLOAT)
def test_a_pass_keeps_every_zero_under_its_name(name: str, stages: dict) -> None:
    before, after = stages[name]
    assert count_zeros(before) == count_zeros(after)


@pytest.mark.parametrize("name", FLOAT)
def test_a_pass_ensures_what_it_says(name: str, stages: dict) -> None:
    _, after = stages[name]
    for fact in passes.PASSES[name].ensures:
        assert all(fact.holds(node) for node in nodes(after, fact.operator)), fact.says


@pytest.mark.parametrize("name", ["gemm_to_matmul", "fold_weights", "decompose_layer_norm", "reorder_gelu"])
def test_a_pass_had_something_to_do(name: str, stages: dict) -> None:
    before, _ = stages[name]
    facts = passes.PASSES[name].ensures
    assert any(not fact.holds(node) for fact in facts for node in nodes(before, fact.operator))


def test_a_pass_applied_twice_changes_nothing_more(fast: ir.Model, profile: Profile) -> None:
    again = passes.apply(copy_of(fast), profile.passes)
    assert [node.op_type for node in again.graph] == [node.op_type for node in fast.graph]


def test_linear_weights_are_constants_stored_as_matmul_reads_them(fast: ir.Model) -> None:
    assert fast.graph.initializers["blocks.0.attn.qkv.weight"].shape == (32, 96)
    assert fast.graph.initializers["head.weight"].shape == (32, 10)


def test_equal_pruned_weights_keep_names_of_their_own(raw: ir.Model, profile: Profile) -> None:
    model = copy_of(raw)
    names = ["blocks.0.attn.proj.weight", "blocks.1.attn.proj.weight"]
    for name in names:
        model.graph.initializers[name].const_value = ir.tensor(np.zeros((32, 32), np.float32), name=name)
    model = passes.apply(model, profile.passes)
    assert [count_zeros(model)[name] for name in names] == [1024, 1024]


def test_an_unknown_pass_is_refused_with_the_nearest_name(raw: ir.Model) -> None:
    with pytest.raises(ExportError, match="fold_weight: no such pass") as error:
        passes.apply(raw, ["fold_weight"])
    assert "did you mean fold_weights?" in error.value.hint


def test_a_pass_in_the_wrong_place_is_refused(raw: ir.Model) -> None:
    with pytest.raises(ExportError, match="fold_constants requires no transposed weight"):
        passes.apply(copy_of(raw), ["fold_constants"])


def test_tied_weights_are_refused(raw: ir.Model) -> None:
    model = copy_of(raw)
    transpose = next(node for node in nodes(model, "Transpose") if is_of_weight(node))
    reader = ir.node("Identity", [transpose.inputs[0]])
    model.graph.insert_before(transpose, reader)
    with pytest.raises(ExportError, match="transposed weights without other uses"):
        passes.apply(model, ["fold_weights"])


def test_a_pass_that_fills_a_zero_is_refused(fast: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(model: ir.Model) -> ir.Model:
        weight = model.graph.initializers["blocks.0.mlp.fc1.weight"]
        weight.const_value = ir.tensor(np.ones(weight.shape.numpy(), np.float32), name=weight.name)
        return model

    monkeypatch.setitem(passes.PASSES, "fill", passes.Pass(fill))
    with pytest.raises(ExportError, match=r"pass fill changed the zeros of blocks.0.mlp.fc1.weight"):
        passes.apply(copy_of(fast), ["fill"])


def test_equal_constants_of_new_nodes_are_one_initializer(raw: ir.Model) -> None:
    graph = copy_of(raw).graph
    assert number(graph, 2.0) is number(graph, 2.0)
    assert number(graph, [-1]) is not number(graph, -1.0)


def test_a_table_folded_into_a_constant_is_no_lost_weight(fast: ir.Model) -> None:
    model = copy_of(fast)
    table = ir.val("table", const_value=ir.tensor(np.zeros((2, 3), np.float32)))
    model.graph.register_initializer(table)
    row = ir.node("Gather", [table, number(model.graph, [0])], {"axis": 0})
    summed = ir.node("ReduceSum", [row.outputs[0]], {"keepdims": 0})
    shifted = ir.node("Add", [model.graph.outputs[0], summed.outputs[0]])
    model.graph.extend([row, summed, shifted])
    model.graph.outputs[0] = shifted.outputs[0]
    assert "table" not in count_zeros(passes.apply(model, ["fold_constants"]))
