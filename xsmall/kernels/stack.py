"""Stacks of frames as one flat array and a step, which is what kernels read without a copy.

A stack of frames of one segment is seldom contiguous, but each frame in it is. Seen flat, frame j starts at
``j * step``; the inner loop then runs over memory that the compiler knows to be contiguous.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

__all__ = ["flat_frames", "flat_target"]


def _step(stack: npt.NDArray[Any]) -> int | None:
    """Elements from one frame to the next where each frame is contiguous and they follow each other, else None."""
    item = stack.itemsize
    n = math.prod(stack.shape[1:])
    if stack.shape[0] > 1 and (stack.strides[0] % item or stack.strides[0] < n * item):
        return None
    if not stack[0].flags.c_contiguous:
        return None
    return stack.strides[0] // item if stack.shape[0] > 1 else n


def flat_frames(stack: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int]:
    """Return a stack (k, ...) of at least one frame as (flat array, step), read-only, in native byte order.

    Copies only where a frame is not contiguous, aligned and in the byte order of the machine.
    """
    if not stack.dtype.isnative:
        stack = stack.astype(stack.dtype.newbyteorder("="))
    step = _step(stack) if stack.flags.aligned else None
    if step is None:
        stack = np.array(stack, order="C", copy=True)
        step = stack[0].size
    flat = as_strided(stack, ((stack.shape[0] - 1) * step + stack[0].size,), (stack.itemsize,), writeable=False)
    return flat, step


def flat_target(stack: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int] | None:
    """Return a stack to write to as (flat array, step), or None where its frames are not contiguous."""
    step = _step(stack)
    if step is None:
        return None
    return as_strided(stack, ((stack.shape[0] - 1) * step + stack[0].size,), (stack.itemsize,)), step
