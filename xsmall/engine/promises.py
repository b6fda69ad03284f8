"""What a record of somebody else's has to keep: it returns what its outputs say, or one error says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.detector.frames import Frames
from xsmall.engine.record import Output, Record, Reducer, Totals
from xsmall.errors import ParameterError

__all__ = ["Returned", "add_pieces", "checked_totals", "checked_variables", "is_ours", "reducers_of"]

Returned = dict[tuple[str, str], list[npt.NDArray[Any]]]
"""Arrays of groups of events, not yet behind each other, by the name of the record and of its variable."""
_OURS = "xsmall."


def reducers_of(records: Mapping[str, Record], frames: Frames) -> dict[str, Reducer]:
    """Make the reducers of some records.

    Raises
    ------
    ParameterError
        A record makes something else.
    """
    made = {name: record.reducer(frames) for name, record in records.items()}
    for name, reducer in made.items():
        if not isinstance(reducer, Reducer):
            raise ParameterError(
                f"the record {name!r} makes no reducer", found=type(reducer).__name__, expected="an xs.Reducer",
                fix="return an instance of your subclass of xs.Reducer",
            )  # fmt: skip
    return made


def is_ours(reducer: Reducer) -> bool:
    """Whether a reducer is one of this package, which is known not to write to frames that are a user's own."""
    return type(reducer).__module__.startswith(_OURS)


def add_pieces(pieces: Returned, name: str, found: Any, promised: Mapping[str, Output], k: int) -> None:
    """Put what a reducer found in a group of ``k`` events behind what it found before.

    Raises
    ------
    ParameterError
        It is not what the record said; or the arrays are those of the group before, which are changed then.
    """
    if not isinstance(found, Mapping) or found.keys() != promised.keys():
        told = list(found) if isinstance(found, Mapping) else type(found).__name__
        raise _broken(name, "end", f"{told}", f"{list(promised)}, as its outputs say")
    for variable, output in promised.items():
        values = np.asarray(found[variable])
        shape, dtype = (k, *output.array_shape), output.array_dtype
        if values.shape != shape:
            raise _broken(name, "end", f"{variable} of shape {values.shape}", f"{shape}: events first")
        if values.dtype != dtype and not np.can_cast(values.dtype, dtype, "same_kind"):
            raise _broken(name, "end", f"{variable} of dtype {values.dtype}", f"{dtype}, as its outputs say")
        before = pieces[name, variable]
        if before and values.size and np.may_share_memory(values, before[-1]):
            raise ParameterError(
                f"the record {name!r} returns the same array again, so that what it returned before is changed",
                found=f"{variable} shares its memory with that of the events before",
                expected="arrays of their own from each end()",
                fix="make the arrays anew for each group of events",
            )
        before.append(values)


def checked_totals(name: str, totals: Totals | None, outputs: Mapping[str, Output]) -> Totals | None:
    """What a reducer has gathered of all events, where its record has variables that are summed.

    Raises
    ------
    ParameterError
        It gathered nothing that can be joined with others.
    """
    summed = [v for v, output in outputs.items() if output.summed]
    if (summed or totals is not None) and not isinstance(totals, Totals):
        raise _broken(
            name, "totals", type(totals).__name__, f"an xs.Totals, since {', '.join(summed) or 'nothing'} is summed"
        )
    return totals


def checked_variables(name: str, found: Any, outputs: Mapping[str, Output]) -> Mapping[str, npt.NDArray[Any]]:
    """The variables that were made of what was gathered of all events.

    Raises
    ------
    ParameterError
        They are not what the record said.
    """
    summed = {v: output for v, output in outputs.items() if output.summed}
    if not isinstance(found, Mapping) or not found.keys() >= summed.keys():
        told = list(found) if isinstance(found, Mapping) else type(found).__name__
        raise _broken(name, "finish", f"{told}", f"{list(summed)}, as its outputs say")
    for variable, output in summed.items():
        if np.shape(found[variable]) != output.array_shape:
            raise _broken(name, "finish", f"{variable} of shape {np.shape(found[variable])}", f"{output.array_shape}")
    return {variable: found[variable] for variable in summed}


def _broken(name: str, method: str, found: str, expected: str) -> ParameterError:
    return ParameterError(
        f"the record {name!r} does not return what it said", found=f"{method}() gives {found}", expected=expected,
        fix=f"let the outputs of the record and {method} of its reducer say the same",
    )  # fmt: skip
