"""Calls a user's function for each event, or for a few together; what it raises is told and stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.engine.interrupt import check
from xsmall.engine.record import Input, Output, Reducer
from xsmall.events.ragged import object_array
from xsmall.vocabulary import ERROR, FAILED, MISSING, VALUE

__all__ = [
    "ERROR_LENGTH",
    "FRAMES",
    "NUMBERS",
    "Caller",
    "UserReducer",
    "of_event",
    "read_only",
]

Array = npt.NDArray[Any]
FRAMES: Final = "frames"  # where they have no name of their own
ERROR_LENGTH: Final = 80
NUMBERS: Final = "biuf"
"""Kinds of dtypes that a function may return."""
_ABOUT_READ_ONLY: Final = ("read-only", "readonly", "No matching definition", "cannot set WRITEABLE")


class Caller:
    """Calls a function with read-only views; one that writes to its frames gets copies of its own, from then on.

    Parameters
    ----------
    function
        The user's; a compiled one is taken in its form that releases the GIL.
    first
        Keyword of the frames, or None where they are the first argument.
    """

    def __init__(self, function: Callable[..., Any], first: str | None) -> None:
        from xsmall.kernels.user import without_gil

        self._function = without_gil(function)
        self._first = first
        self._copies = False

    def __call__(self, frames: Sequence[Array], beside: Mapping[str, Any]) -> dict[str, Any]:
        """Call it with the frames (and their variance), and with what lies beside them by keyword."""
        if not self._copies:
            try:
                return self._called(frames, beside)
            except Exception as problem:
                if not any(text in str(problem) for text in _ABOUT_READ_ONLY):
                    raise
        found = self._called([f.copy() for f in frames], {k: np.copy(v)[()] for k, v in beside.items()})
        self._copies = True
        return found

    def _called(self, frames: Sequence[Array], beside: Mapping[str, Any]) -> dict[str, Any]:
        if self._first is None:
            return named(self._function(*frames, **beside))
        return named(self._function(**{self._first: frames[0]}, **beside))


def named(result: Any) -> dict[str, Any]:
    """What a function returned, by name."""
    return {str(k): v for k, v in result.items()} if isinstance(result, Mapping) else {VALUE: result}


def read_only(values: Array) -> Any:
    """A number as such, an array as a view that cannot be written to."""
    if values.ndim == 0:
        return values[()]
    view = values.view()
    view.flags.writeable = False
    return view


class UserReducer(Reducer):
    """Calls the function with whole frames, which are views: nothing is copied unless the function writes to them."""

    takes_whole_frames = True

    def __init__(
        self,
        caller: Caller,
        outputs: Mapping[str, Output],
        *,
        variance: bool,
        batch: bool,
        first: str | None,
        inputs: Sequence[Input],
        missing: np.dtype[Any],
    ) -> None:
        self._caller = caller
        self._outputs = dict(outputs)
        self._with_variance = variance
        self._batch = batch
        self._first = first
        self._inputs = tuple(inputs)
        self._missing_dtype = missing
        self._k = 0

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._k = k

    def add(self, s: int, frames: Any, variance: Any = None) -> None:
        """Do nothing: whole frames come."""

    def whole(self, frames: Array, variance: Array | None, here: npt.NDArray[np.bool_]) -> None:
        """Take the frames of the group."""
        self._frames = [frames, variance] if self._with_variance and variance is not None else [frames]
        self._here = here

    def end(self) -> Mapping[str, Array]:
        """Call the function where all it takes is there; where it fails the event says so and the others go on."""
        k = self._k
        failed, error = np.zeros(k, bool), np.zeros(k, f"U{ERROR_LENGTH}")
        missing = self._missing()
        ready = np.flatnonzero(missing == "") if self._inputs else np.arange(k)
        found = {name: [_nothing(output)] * k for name, output in self._outputs.items()}
        for events in [ready] if self._batch and ready.size else ready[:, None]:
            check()
            for e, values, problem in self._results(events):
                if problem:
                    failed[e], error[e] = True, problem
                for name, value in values.items():
                    found[name][e] = value
        out = {
            name: object_array(found[name], (k,)) if output.is_ragged else np.stack(found[name])
            for name, output in self._outputs.items()
        }
        return {**out, FAILED: failed, ERROR: error} | ({MISSING: missing} if self._inputs else {})

    def _missing(self) -> npt.NDArray[np.str_]:
        """What each event lacks of what the function takes, by keyword."""
        said = np.zeros(self._k, self._missing_dtype)
        there = [(self._first or FRAMES, self._here)]
        there += [(i.keyword, self.beside[i.name][1]) for i in self._inputs]
        for e in range(self._k):
            said[e] = ", ".join(keyword for keyword, here in there if not here[e])
        return said

    def _results(self, events: npt.NDArray[np.intp]) -> list[tuple[int, dict[str, Array], str]]:
        """(event, values, what went wrong) of some events; a batch that fails is called event by event."""
        try:
            values = self._called(events)
            each = [values] if not self._batch else [of_event(values, i, events.size) for i in range(events.size)]
            return [(int(e), self._checked(v), "") for e, v in zip(events, each, strict=True)]
        except (Exception, SystemExit) as problem:  # a user's code may raise anything, which is told in the result
            if events.size > 1:
                return [result for e in events for result in self._results(np.array([e]))]
            return [(int(events[0]), {}, f"{type(problem).__name__}: {problem}"[:ERROR_LENGTH])]

    def _called(self, events: npt.NDArray[np.intp]) -> dict[str, Any]:
        at: Any = (events if events.size < self._k else slice(None)) if self._batch else int(events[0])
        frames = [read_only(stack[at]) for stack in self._frames]
        beside = {}
        for i in self._inputs:
            values = self.beside[i.name][0][at]
            beside[i.keyword] = read_only(values.reshape((*values.shape[: self._batch], *i.shape)))
        return self._caller(frames, beside)

    def _checked(self, values: dict[str, Any]) -> dict[str, Array]:
        """The values as arrays of the shapes that were said."""
        if values.keys() != self._outputs.keys():
            raise ValueError(f"returned {sorted(values)} instead of {sorted(self._outputs)}")
        out = {}
        for name, output in self._outputs.items():
            array = _without_masked(values[name])
            if array.dtype.kind not in NUMBERS and array.size:
                raise ValueError(f"{name} is {array.dtype}")
            if array.ndim != 1 if output.is_ragged else array.shape != output.array_shape:
                told = "; a list may have any length" if array.ndim == 1 == len(output.shape) else ""
                raise ValueError(f"{name} has shape {array.shape} instead of {output.shape}{told}")
            out[name] = _as_promised(name, array, output.dtype)
        return out


def _without_masked(values: Any) -> Array:
    """An array; what is masked of one of numpy.ma is NaN, since what lies under a mask is no result."""
    if not np.ma.is_masked(values):
        return np.asarray(values)
    floats = np.result_type(values.dtype, np.float16)
    return np.asarray(values.astype(floats).filled(np.nan))


def _as_promised(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Values in the type that was said, a copy: the function may return a view of its frame. None becomes another."""
    with np.errstate(over="ignore", invalid="ignore"):
        out = array.astype(dtype)
    if dtype.kind != "f" and not (out == array).all():
        raise ValueError(f"{name} is no {dtype}: {array[out != array].ravel()[0]}")
    if dtype.kind == "f" and array.dtype != dtype and (np.isinf(out) & np.isfinite(array)).any():
        raise ValueError(f"{name} is too large for {dtype}")
    return out


def of_event(values: Mapping[str, Any], i: int, n: int) -> dict[str, Any]:
    """What a function of a batch of ``n`` returned for event ``i`` of it."""
    for name, value in values.items():
        if (len(value) if isinstance(value, list) else (np.shape(value) or (-1,))[0]) != n:
            raise ValueError(f"{name} is not one value for each of the {n} events of the batch")
    return {name: value[i] for name, value in values.items()}


def _nothing(output: Output) -> Array:
    """What stands where the function failed: NaN, 0, False, or an empty list."""
    if output.is_ragged:
        return np.empty(0, output.dtype)
    return np.full(output.array_shape, np.nan if output.dtype.kind == "f" else 0).astype(output.dtype)
