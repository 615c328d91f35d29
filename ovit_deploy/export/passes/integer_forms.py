"""Which products DeepSparse 1.8 runs in integers: found one by one, with graphs of a single product.

A convolution that it does not is left in float, of the same rounded factors. There are three kinds:

* groups that are not depthwise (one input and one output each): it has no integer kernel for them, and refuses;
* a single pixel (squeeze-and-excitation) and
* tokens laid out as pixels (after Reshape or Transpose): with zeros in the weight its compiler dies.
"""

import onnx_ir as ir

from ovit_deploy.export.passes.graph import operand

_LAYS_OUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"}
_MAKES_PIXELS = {"Conv", "ConvInteger", "GlobalAveragePool", "AveragePool", "MaxPool"}


def has_integer_form(product: ir.Node) -> bool:
    """False for a convolution that DeepSparse has in float only; ``product`` is a Conv or a MatMul of known shapes."""
    return product.op_type != "Conv" or not (
        _is_grouped(product) or _is_of_one_pixel(product) or _is_of_tokens(product)
    )


def _is_grouped(convolution: ir.Node) -> bool:
    """True for groups of more than one input, or more than one output."""
    weight, groups = operand(convolution, 1).shape, convolution.attributes.get("group")
    assert weight is not None, f"{convolution.name}: unknown shape of the weight"
    return groups is not None and groups.as_int() > 1 and list(weight[:2]) != [groups.as_int(), 1]


def _is_of_one_pixel(convolution: ir.Node) -> bool:
    pixels = convolution.outputs[0].shape
    assert pixels is not None, f"{convolution.name}: unknown shape of the output"
    return list(pixels[2:]) == [1, 1]


def _is_of_tokens(convolution: ir.Node) -> bool:
    """True if what the convolution reads was laid out anew since the last operator that makes pixels."""
    values = [operand(convolution, 0)]
    while values:
        node = values.pop().producer()
        if node is None or node.op_type in _MAKES_PIXELS:
            continue
        if node.op_type in _LAYS_OUT:
            return True
        values += [value for value in node.inputs if value is not None]
    return False
