"""Vector code that the compiler does not find by itself, written in the compiler's own language.

numba leaves it to LLVM to turn a loop over pixels into vector instructions. Where that fails (sums that a table names,
several searches side by side, more arrays than LLVM is willing to compare), the few lines of a kernel that matter are
spelled out here as vectors. :func:`vector_code` makes such a piece callable from kernels; :class:`Emit` is what it is
written with. Vectors of any length are translated to what the processor at hand has.

Nothing is checked: the kernels that call these know that every element is inside its array.

This and the cache in :mod:`xsmall.kernels.jit` are what reaches into numba and llvmlite. Each piece
has a plain form beside it, a loop that numba compiles like any other. ``XSMALL_PLAIN_KERNELS=1`` in the environment
takes the plain forms and does without the cache: the results are the same, and come more slowly. Set it where a new
numba breaks this.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import types

from xsmall.kernels.jit import PLAIN, njit

__all__ = ["LINE", "Emit", "fetch", "fetch_line", "lowest", "vector_code"]

LINE = 64
"""Bytes that memory hands over at once."""

ir: Any = None
I1 = I16 = I32 = I64 = F32 = F64 = ir
if not PLAIN:
    from numba.core import cgutils
    from numba.core.errors import TypingError
    from numba.extending import intrinsic

    ir = cgutils.ir  # llvmlite's, at the version that numba uses
    I1, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))
    F32, F64 = ir.FloatType(), ir.DoubleType()


class Emit:
    """The builder of one piece of vector code, with short names for what is needed here.

    Attributes
    ----------
    build
        llvmlite's IRBuilder.
    kinds
        numba's types of the arguments: an integer of LLVM does not know whether it has a sign.
    """

    def __init__(self, context: Any, builder: Any, kinds: Sequence[types.Type] = ()) -> None:
        self.build = builder
        self.kinds = kinds
        self._context = context

    def argument(self, kind: types.Type, value: Any) -> Any:
        """Return what a writer is handed: a number, or of an array the pointer to its first element."""
        if isinstance(kind, types.Array):
            return self._context.make_array(kind)(self._context, self.build, value).data
        return value

    def at(self, pointer: Any, offset: Any) -> Any:
        """Move a pointer by ``offset`` elements (a number, or a value of 64 bits)."""
        return self.build.gep(pointer, [I64(offset) if isinstance(offset, int) else offset])

    def load(self, pointer: Any, lanes: int, step: int = 0) -> Any:
        """Load a vector that begins at a pointer; the next one ``step`` elements on where there is one."""
        element = pointer.type.pointee
        vector = ir.VectorType(element, lanes)
        return self.build.load(self.build.bitcast(self.at(pointer, step), vector.as_pointer()), align=_align(element))

    def store(self, vector: Any, pointer: Any, step: int = 0) -> None:
        """Store a vector at a pointer, ``step`` elements on."""
        target = self.build.bitcast(self.at(pointer, step), vector.type.as_pointer())
        self.build.store(vector, target, align=_align(pointer.type.pointee))

    def splat(self, value: Any, lanes: int) -> Any:
        """Make a vector whose lanes all hold one value."""
        vector = ir.VectorType(value.type, lanes)
        first = self.build.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
        return self.shuffle(first, first, [0] * lanes)

    def shuffle(self, one: Any, other: Any, order: list[int] | tuple[int, ...]) -> Any:
        """Choose lanes of two vectors, numbered through."""
        return self.build.shuffle_vector(one, other, ir.Constant(ir.VectorType(I32, len(order)), list(order)))

    def variable(self, start: Any) -> Any:
        """Make a variable: ``build.load`` and ``build.store`` read and change it; it lives in a register."""
        return cgutils.alloca_once_value(self.build, start)

    @contextmanager
    def loop(self, stop: Any, step: int = 1) -> Iterator[Any]:
        """Repeat what follows for 0, step, 2 step ... below ``stop``; yields the number."""
        with cgutils.for_range_slice(self.build, I64(0), stop, I64(step), I64) as (index, _):
            yield index

    def smaller(self, one: Any, other: Any) -> Any:
        """Smaller one of two values in each lane, none of which is NaN."""
        return self._chosen("minnum", one, other)

    def larger(self, one: Any, other: Any) -> Any:
        """Larger one of two values in each lane, none of which is NaN."""
        return self._chosen("maxnum", one, other)

    def _chosen(self, operation: str, one: Any, other: Any) -> Any:
        vector = one.type
        name = f"llvm.{operation}.v{vector.count}f{_align(vector.element) * 8}"
        called = cgutils.get_or_insert_function(self.build.module, ir.FunctionType(vector, [vector, vector]), name)
        return self.build.call(called, [one, other], fastmath=("nnan", "nsz"))

    def across(self, operation: str, vector: Any, *start: Any) -> Any:
        """Reduce a vector to one value: ``or``, ``and``, ``add``, ``umin``, ``fmax`` ...."""
        element = vector.type.element
        suffix = f"v{vector.type.count}{'f' if element in (F32, F64) else 'i'}{_align(element) * 8}"
        if element == I1:
            suffix = f"v{vector.type.count}i1"
        kind = ir.FunctionType(element, [*(s.type for s in start), vector.type])
        name = f"llvm.vector.reduce.{operation}.{suffix}"
        return self.build.call(cgutils.get_or_insert_function(self.build.module, kind, name), [*start, vector])

    def bits(self, truths: Any) -> Any:
        """Make a number of a vector of truth values, a bit for each, the first one lowest."""
        return self.build.bitcast(truths, ir.IntType(truths.type.count))

    def trailing(self, value: Any) -> Any:
        """Count the zeros below the lowest bit of an integer; all its bits where it is zero."""
        return self.build.cttz(value, I1(0))

    def fetch(self, pointer: Any) -> None:
        """Ask for the line of a pointer, which is going to be read; any address may be asked for."""
        byte = self.build.bitcast(pointer, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [byte.type, I32, I32, I32])
        call = self.build.module.declare_intrinsic("llvm.prefetch", [byte.type], kind)
        self.build.call(call, [byte, I32(0), I32(3), I32(1)])  # to read, near, data

    def fetch_lines(self, pointer: Any, n: int) -> None:
        """Ask for the lines of ``n`` elements from a pointer on."""
        for i in range(0, n, LINE // _align(pointer.type.pointee)):
            self.fetch(self.at(pointer, i))

    def nothing(self) -> Any:
        """What a piece returns that returns nothing."""
        return self._context.get_dummy_value()


def _align(element: Any) -> int:
    return {F32: 4, F64: 8}.get(element) or max(element.width // 8, 1)


def constant(vector: Any, value: float) -> Any:
    """Make a constant vector whose lanes all hold one number."""
    return ir.Constant(vector, [value] * vector.count)


def vector_code(result: types.Type, plain: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a function that kernels can call of one that writes vector code.

    Parameters
    ----------
    result
        numba's type of what it returns; a writer for ``types.void`` returns ``emit.nothing()``.
    plain
        The same as a compiled loop, of the same arguments, which is taken where :data:`PLAIN` is set.

    Notes
    -----
    The writer is handed an :class:`Emit` and the arguments: numbers in the type in which the caller has them, of
    arrays, which have to be contiguous, the pointer to the first element.
    """

    def of(write: Callable[..., Any]) -> Callable[..., Any]:
        if PLAIN:
            return plain

        def piece(typing_context: Any, *arguments: Any) -> Any:
            del typing_context
            plain = tuple(types.unliteral(a) for a in arguments)
            if any(isinstance(a, types.Array) and a.layout != "C" for a in plain):
                raise TypingError(f"{write.__name__} walks memory itself: arrays have to be contiguous")

            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                emit = Emit(context, builder, signature.args)
                return write(emit, *map(emit.argument, signature.args, values))

            return result(*plain), generate

        piece.__name__ = piece.__qualname__ = write.__name__
        piece.__doc__, piece.__module__ = write.__doc__, write.__module__
        piece.__signature__ = inspect.signature(write)  # type: ignore[attr-defined]  # how many arguments it takes
        called: Callable[..., Any] = intrinsic(piece)
        return called

    return of


@njit
def _lowest(bits: Any) -> Any:
    """Do what :func:`lowest` does, bit by bit."""
    n = np.int64(0)
    while n < 64 and not (np.uint64(bits) >> np.uint64(n)) & np.uint64(1):
        n += 1
    return n


@vector_code(types.int64, _lowest)
def lowest(emit: Emit, bits: Any) -> Any:
    """Return the number of the lowest bit that is set in a word of 64; 64 where none is."""
    return emit.trailing(bits)


@njit
def _fetch_nothing(array: Any, i: Any) -> None:
    """Do what :func:`fetch_line` does: nothing that can be seen."""


@vector_code(types.void, _fetch_nothing)
def fetch_line(emit: Emit, array: Any, i: Any) -> Any:
    """Ask for the line of an element."""
    emit.fetch(emit.at(array, i))
    return emit.nothing()


@njit
def fetch(array: Any, start: Any, stop: Any) -> None:
    """Ask for elements that are going to be read, while others are worked on; they may lie outside of the array.

    A processor looks ahead by itself, but no further than the end of a page, and not where several arrays are read a
    page at a time.
    """
    for i in range(start, stop, LINE // array.itemsize):
        fetch_line(array, i)
