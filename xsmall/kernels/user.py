"""Functions of users that numba has compiled: run without the GIL, so that threads work side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["without_gil"]


def without_gil(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a compiled function in a form that releases the GIL; any other function as it is.

    Parameters
    ----------
    function
        Compiled by ``numba.njit`` with whatever options, or plain.

    Returns
    -------
    The function itself where it releases the GIL or is not compiled, else the same source compiled again, for the same
    signatures and with the same options.

    Examples
    --------
    >>> import numba
    >>> held = numba.njit(lambda x: x + 1)
    >>> without_gil(held).targetoptions["nogil"], without_gil(held)(1)
    (True, 2)
    >>> without_gil(len) is len
    True
    """
    compiled: Any = function
    given = getattr(function, "targetoptions", None)  # of what numba compiled; where a new one has none, it is as it is
    if not isinstance(given, dict) or given.get("nogil") or not hasattr(function, "py_func"):
        return function
    options = {name: value for name, value in given.items() if name not in ("nopython", "nogil")}
    signatures = [] if getattr(function, "_can_compile", True) else list(compiled.nopython_signatures)
    return numba.jit(signatures or None, nopython=True, nogil=True, **options)(compiled.py_func)  # type: ignore[no-any-return]
