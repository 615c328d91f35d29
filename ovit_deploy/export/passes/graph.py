"""What the passes share: looking into an ``onnx_ir`` graph and replacing a node in it."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
from onnx_ir.convenience import replace_nodes_and_values
from onnx_ir.tape import Tape

Build = Callable[[Tape, ir.Node], ir.Value]


def nodes(model: ir.Model, operator: str) -> Iterator[ir.Node]:
    """All nodes of one operator, in a list of their own so that the graph may change meanwhile."""
    return iter([node for node in model.graph if node.domain == "" and node.op_type == operator])


def operand(node: ir.Node, index: int) -> ir.Value:
    """An input that the operator cannot do without."""
    value = node.inputs[index]
    assert value is not None, f"{node.name} has no input {index}"
    return value


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer; None for anything else."""
    return value.const_value if value is not None and value.is_initializer() else None


def is_constant(value: ir.Value | None) -> bool:
    """True for an initializer."""
    return constant(value) is not None


def array(value: ir.Value) -> np.ndarray:
    """The values of an initializer."""
    tensor = constant(value)
    assert tensor is not None, f"{value.name} is no constant"
    return tensor.numpy()


def number(graph: ir.Graph, value: float | list[int]) -> ir.Value:
    """A constant for new nodes (one float32, or a vector of int64), an initializer that equal ones share."""
    tensor = ir.tensor(np.array(value, dtype=np.int64 if isinstance(value, list) else np.float32))
    name = f"constant_{value}"
    if name not in graph.initializers:
        graph.register_initializer(ir.val(name, dtype=tensor.dtype, shape=list(np.shape(value)), const_value=tensor))
    return graph.initializers[name]


def initializer(graph: ir.Graph, name: str, values: np.ndarray) -> ir.Value:
    """A constant of that name; the one that is there already, if there is."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.asarray(values), name=name)
        value = ir.val(name, dtype=tensor.dtype, shape=list(np.shape(values)), const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]


def replace(node: ir.Node, build: Build) -> None:
    """Put what ``build`` lays on the tape in the place of ``node``; its output keeps name, shape and type."""
    graph, tape = node.graph, Tape()
    assert graph is not None
    result = build(tape, node)
    replace_nodes_and_values(graph, node, [node], tape.nodes, [node.outputs[0]], [result])
