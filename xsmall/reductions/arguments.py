"""Numbers that users give: checked one way, with one form of error."""

from __future__ import annotations

import math

import numpy as np

from xsmall.errors import ParameterError

__all__ = ["one_of", "real_number", "whole_number"]


def whole_number(what: str, value: object, fix: str | None = None, *, least: int | None = 1) -> int:
    """Give an integer that is not below ``least``.

    Raises
    ------
    ParameterError
        It is none.
    """
    known = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not known or (least is not None and value < least):  # type: ignore[operator]
        expected = "a whole number" if least is None else f"a whole number, {least} or more"
        raise ParameterError(f"invalid {what}", found=repr(value)[:80], expected=expected, fix=fix)
    return int(value)  # type: ignore[call-overload, no-any-return]


def real_number(
    what: str,
    value: object,
    expected: str,
    fix: str | None = None,
    *,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Give a number between two limits, which are not in it.

    Raises
    ------
    ParameterError
        It is none.
    """
    try:
        is_one = np.ndim(value) == 0 and not isinstance(value, bool | np.bool_ | str)  # type: ignore[arg-type]
        found = float(value) if is_one else math.nan  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if not above < found < below:
        raise ParameterError(f"invalid {what}", found=repr(value)[:80], expected=expected, fix=fix)
    return found


def one_of(what: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise unless a value is one of those that are allowed.

    Raises
    ------
    ParameterError
        It is none.
    """
    if value not in allowed:
        raise ParameterError(f"invalid {what}", found=repr(value)[:80], expected=" or ".join(map(repr, allowed)))
