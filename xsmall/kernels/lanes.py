"""Four pixels of four frames added to their sums: a vector step that the compiler does not find by itself.

Each pixel of a frame goes to a sum that a table names, so that a loop over pixels is scalar work. With four frames side
by side the four values of a pixel are one vector, and four pixels are a square of 4 by 4 values that is turned on its
side in registers: half the instructions, a quarter of the stores. That is said here in the compiler's own language.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

__all__ = ["add_square"]

_LOW, _HIGH = (0, 4, 1, 5), (2, 6, 3, 7)  # two vectors interleaved
_FIRST, _SECOND = (0, 1, 4, 5), (2, 3, 6, 7)  # halves of two vectors joined


@intrinsic
def add_square(
    typing_context: Any, sums: Any, p: Any, q: Any, r: Any, s: Any, a: Any, b: Any, c: Any, d: Any, i: Any
) -> Any:
    """Add ``a[i + n], b[i + n], c[i + n], d[i + n]`` to ``sums`` at the n-th of p, q, r, s and the three after it.

    Parameters
    ----------
    sums
        Contiguous float64, 1-D.
    p, q, r, s
        Places in ``sums``, int64, one for each of the four pixels, taken in this order.
    a, b, c, d
        Contiguous 1-D arrays of one floating dtype.
    i
        First pixel, int64; i + 3 has to be inside the arrays. Nothing is checked.
    """
    del typing_context
    if any(array.layout != "C" for array in (sums, a, b, c, d)):
        raise TypingError("add_square walks memory itself: arrays have to be contiguous")
    return types.void(sums, p, q, r, s, a, b, c, d, i), _generate


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    ir = cgutils.ir  # llvmlite's, at the version that numba uses
    double = ir.VectorType(ir.DoubleType(), 4)
    values = signature.args[5].dtype
    four = ir.VectorType(context.get_data_type(values), 4)

    def place(array: int, offset: Any, vector: Any) -> Any:
        data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
        return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())

    def shuffle(one: Any, other: Any, order: tuple[int, ...]) -> Any:
        return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), 4), list(order)))

    a, b, c, d = (builder.load(place(n, arguments[9], four), align=values.bitwidth // 8) for n in range(5, 9))
    for n, (pair, half) in enumerate(((_LOW, _FIRST), (_LOW, _SECOND), (_HIGH, _FIRST), (_HIGH, _SECOND))):
        pixel = shuffle(shuffle(a, b, pair), shuffle(c, d, pair), half)
        if four != double:
            pixel = builder.fpext(pixel, double)
        target = place(0, arguments[1 + n], double)
        builder.store(builder.fadd(builder.load(target, align=8), pixel), target, align=8)
    return context.get_dummy_value()
