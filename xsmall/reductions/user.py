"""A user's own function of a frame as a record: it joins the pass of all others."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from xsmall.detector.frames import Frames
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.events.ragged import object_array
from xsmall.vocabulary import VALUE

__all__ = ["UserRecord", "record"]

Function = Callable[..., Any]
FAILED = "failed"
ERROR = "error"
_ERROR_LENGTH = 80


def record(function: Function, *, outputs: Mapping[str, Any] | None = None, variance: bool = False) -> UserRecord:
    """Make a record of your own function of one frame.

    Parameters
    ----------
    function
        Takes the frame of one event, float (segment, row, column), NaN where a pixel is not valid, and returns a
        number, an array, a list of its own length, or a mapping of names to these. NumPy or a compiled function of
        numba; it must be known to workers (picklable), and must not write to the frame.
    outputs
        What comes back, by name: a dtype for a number, or an :class:`~xsmall.Output`. Left out, the function is called
        once with a frame of ones, and dims are named ``<name>_0``, ``<name>_1``.
    variance
        Whether the function takes the variance of each pixel as its second argument.

    Returns
    -------
    A record. Its variables are named as in the mapping, or ``value``; besides ``failed`` (event), bool, where the
    function raised or returned another shape, and ``error`` (event), the beginning of what it said. There floats are
    NaN, integers 0 and lists empty.

    Raises
    ------
    ParameterError
        Something that is no function, that cannot be sent to workers, or that fails on a frame of ones.

    Notes
    -----
    Every chunk is read and calibrated once, together with all other records. Cost: one copy of the frame and the call.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> energy = xs.record(lambda frame: {"total": np.nansum(frame), "bright": int((frame > 5).sum())})
    >>> small = cal.sd.reduce({"mine": energy, "rows": xs.projection("row")})
    >>> small["mine_total"].dims, str(small["mine_bright"].dtype), int(small["mine_failed"].sum())
    (('event',), 'int64', 0)
    """
    if not callable(function):
        raise ParameterError(
            "a record is made of a function",
            found=type(function).__name__,
            expected="a function of one frame (segment, row, column)",
            fix="xs.record(lambda frame: np.nansum(frame))",
        )
    declared = None if outputs is None else tuple((str(name), _output(name, said)) for name, said in outputs.items())
    return UserRecord(function, declared, bool(variance), _digest(function))


def _output(name: str, said: Any) -> Output:
    if name in (FAILED, ERROR):
        raise ParameterError(f"an output cannot be called {name!r}", found=name, fix="another name")
    if isinstance(said, Output):
        return said
    try:
        return Output((), (), np.dtype(said))
    except TypeError:
        raise ParameterError(
            f"output {name!r} of a function",
            found=repr(said)[:80],
            expected="a dtype, or an Output",
            fix='outputs={"total": "f8", "profile": xs.Output(("row",), (32,), np.dtype("f8"))}',
        ) from None


def _digest(function: Function) -> str:
    """Hash of the function as workers get it."""
    from distributed.protocol.pickle import dumps

    try:
        return hashlib.sha256(dumps(function) + _source(function).encode()).hexdigest()
    except Exception as error:
        raise ParameterError(
            "the function cannot be sent to workers",
            found=f"{type(error).__name__}: {error}"[:200],
            expected="a function that does not hold files, locks or other things of this process",
            fix="open what it needs inside the function",
        ) from error


@dataclass(frozen=True)
class UserRecord(Record):
    """A function of a frame and what it returns; made by :func:`record`."""

    name: ClassVar[str] = "user"

    function: Function
    declared: tuple[tuple[str, Output], ...] | None
    with_variance: bool
    digest: str

    def values(self, frames: Frames) -> dict[str, Output]:
        """What the function itself returns."""
        if self.with_variance and not frames.variance:
            raise ParameterError(
                "the function takes a variance that these frames do not have",
                found="frames without variance",
                fix="calibrate(raw, constants, variance=True)",
            )
        return dict(self.declared) if self.declared is not None else dict(_inferred(self, frames.shape, frames.dtype))

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe what the function returns, and where it failed."""
        return {
            **self.values(frames),
            FAILED: Output((), (), np.dtype(bool)),
            ERROR: Output((), (), np.dtype(f"U{_ERROR_LENGTH}")),
        }

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return UserReducer(self, frames)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "UserRecord", self.digest, self.declared, self.with_variance

    def __hash__(self) -> int:
        return hash((self.digest, self.with_variance))

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        return f"record({name}, {_source(self.function)}, variance={self.with_variance})"


def _source(function: Function) -> str:
    """Hash of the source text, by which a result tells which code made it."""
    try:
        text = inspect.getsource(getattr(function, "py_func", function))
    except (OSError, TypeError):
        return "source not known"
    return f"source sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


@lru_cache(maxsize=64)
def _inferred(record: UserRecord, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> tuple[tuple[str, Output], ...]:
    """What the function returns for a frame of ones."""
    ones = [np.ones(shape, dtype) for _ in range(1 + record.with_variance)]
    try:
        found = _named(record.function(*ones))
    except Exception as error:
        raise ParameterError(
            "the function fails on a frame of ones, so that what it returns is not known",
            found=f"{type(error).__name__}: {error}"[:200],
            expected=f"a function of one frame {shape}",
            fix='say what it returns: outputs={"value": "f8"}',
        ) from error
    out = {}
    for name, value in found.items():
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ParameterError(
                f"the function returns what is no number: {name!r}",
                found=f"{type(value).__name__} of {array.dtype}",
                expected="numbers, arrays or lists of them",
            )
        if isinstance(value, list):
            out[name] = _output(name, Output((f"{name}_0",), (None,), np.dtype(np.float64)))
        else:
            out[name] = _output(name, Output(tuple(f"{name}_{i}" for i in range(array.ndim)), array.shape, array.dtype))
    return tuple(out.items())


def _named(result: Any) -> dict[str, Any]:
    return {str(k): v for k, v in result.items()} if isinstance(result, Mapping) else {VALUE: result}


class UserReducer(Reducer):
    """Brings the segments of each event together and calls the function."""

    def __init__(self, record: UserRecord, frames: Frames) -> None:
        self._record = record
        self._outputs = record.values(frames)
        self._shape, self._dtype = frames.shape, frames.dtype

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events with frames of their own: functions may keep them."""
        n = 2 if self._record.with_variance else 1
        self._frames = [np.empty((k, *self._shape), self._dtype) for _ in range(n)]

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Take segment ``s``."""
        for whole, part in zip(self._frames, (frames, variance), strict=False):
            whole[:, s] = part

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Call the function for each event; where it fails the event says so and the others go on."""
        k = len(self._frames[0])
        failed, error = np.zeros(k, bool), np.zeros(k, f"U{_ERROR_LENGTH}")
        found: list[dict[str, npt.NDArray[Any]]] = []
        for e in range(k):
            try:
                values = self._checked(_named(self._record.function(*(f[e] for f in self._frames))))
            except Exception as problem:  # a user's code may raise anything, which is told in the result
                failed[e], error[e] = True, f"{type(problem).__name__}: {problem}"[:_ERROR_LENGTH]
                values = {name: _nothing(output) for name, output in self._outputs.items()}
            found.append(values)
        out: dict[str, npt.NDArray[Any]] = {
            name: object_array([v[name] for v in found], (k,))
            if output.is_ragged
            else np.stack([v[name] for v in found]).astype(output.dtype, copy=False)
            for name, output in self._outputs.items()
        }
        return {**out, FAILED: failed, ERROR: error}

    def _checked(self, values: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """The values as arrays of the shapes that were said."""
        if values.keys() != self._outputs.keys():
            raise ValueError(f"returned {sorted(values)} instead of {sorted(self._outputs)}")
        out = {}
        for name, output in self._outputs.items():
            array = np.asarray(values[name])
            if array.dtype.kind not in "biuf" and array.size:
                raise ValueError(f"{name} is {array.dtype}")
            if array.ndim != 1 if output.is_ragged else array.shape != output.array_shape:
                raise ValueError(f"{name} has shape {array.shape} instead of {output.shape}")
            if output.dtype.kind in "iu" and array.dtype.kind == "f" and (array != np.rint(array)).any():
                raise ValueError(f"{name} is not whole, as {output.dtype} wants it")
            out[name] = array.astype(output.dtype)
        return out


def _nothing(output: Output) -> npt.NDArray[Any]:
    """What stands where the function failed: NaN, 0, False, or an empty list."""
    if output.is_ragged:
        return np.empty(0, output.dtype)
    return np.full(output.array_shape, np.nan if output.dtype.kind == "f" else 0).astype(output.dtype)
