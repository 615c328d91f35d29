"""Eight numbers at once in compiled kernels, where LLVM does not find the vectors by itself.

numba cannot promise LLVM that two arrays do not overlap, nor that an index is not negative: short inner loops are then
mostly checks. These functions name the vectors, and the registers follow: a variable that holds one stays in a register
through a loop. LLVM maps a vector of eight to what the processor has.

They take flat, contiguous arrays and do not look at their ends.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 8
_INDEX = ir.IntType(32)
_TO_WRITE, _KEEP, _DATA = _INDEX(1), _INDEX(3), _INDEX(1)


class Vector(types.Type):
    """numba's type of ``LANES`` numbers of a floating-point type."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype}, {LANES})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """LLVM's type of a vector."""

    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.dtype).get_value_type(), LANES))


def in_kernels(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function for compiled kernels; it gets numba's types, and returns a signature and what writes the code."""
    return intrinsic(function)


def _address(context: Any, builder: ir.IRBuilder, signature: Any, args: Any, place: int) -> ir.Value:
    """Where argument ``place``, an array, has the number whose index follows it."""
    array = context.make_array(signature.args[place])(context, builder, args[place])
    return builder.gep(array.data, [args[place + 1]])


def _of_vector(context: Any, builder: ir.IRBuilder, address: ir.Value, vector: Vector) -> ir.Value:
    """The same address, as that of a vector."""
    return builder.bitcast(address, context.get_value_type(vector).as_pointer())


@in_kernels
def load(_: Any, array: Any, index: Any) -> Any:
    """The numbers from ``array[index]`` on."""
    vector = Vector(array.dtype)

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        address = _of_vector(context, builder, _address(context, builder, signature, args, 0), vector)
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp), code


@in_kernels
def store(_: Any, vector: Vector, array: Any, index: Any) -> Any:
    """Write a vector to ``array[index]`` and what follows."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        address = _of_vector(context, builder, _address(context, builder, signature, args, 1), vector)
        builder.store(args[0], address, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(vector, array, types.intp), code


@in_kernels
def spread(_: Any, array: Any, index: Any) -> Any:
    """``array[index]`` in every place."""
    vector = Vector(array.dtype)

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        number = builder.load(_address(context, builder, signature, args, 0))
        empty = ir.Constant(context.get_value_type(vector), ir.Undefined)
        first = builder.insert_element(empty, number, _INDEX(0))
        return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))

    return vector(array, types.intp), code


@in_kernels
def zeros(_: Any, array: Any) -> Any:
    """A vector of zeros for the numbers of an array."""
    vector = Vector(array.dtype)
    return vector(array), lambda context, builder, signature, args: context.get_constant_null(vector)


@in_kernels
def fma(_: Any, x: Vector, y: Vector, total: Vector) -> Any:
    """``x y + total``, rounded once."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        kind, name = args[0].type, f"llvm.fma.v{LANES}f{x.dtype.bitwidth}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, args)

    return x(x, x, x), code


@in_kernels
def multiply(_: Any, x: Vector, y: Vector) -> Any:
    """``x y``."""
    return x(x, x), lambda context, builder, signature, args: builder.fmul(*args)


@in_kernels
def plus(_: Any, x: Vector, y: Vector) -> Any:
    """``x + y``."""
    return x(x, x), lambda context, builder, signature, args: builder.fadd(*args)


@in_kernels
def prefetch(_: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of ``array[index]``, to be changed soon; it may lie behind the end."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        address = builder.bitcast(_address(context, builder, signature, args, 0), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [address.type, _INDEX, _INDEX, _INDEX])
        function = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        builder.call(function, [address, _TO_WRITE, _KEEP, _DATA])
        return context.get_dummy_value()

    return types.void(array, types.intp), code
