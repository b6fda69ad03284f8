"""A user's own function of frames as a record: it joins the pass of all others."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import logging
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, overload

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.asked import FUNCTION, remember
from xsmall.engine.record import Input, Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.reductions.user_reducer import (
    ERROR_LENGTH,
    FRAMES,
    NUMBERS,
    Caller,
    UserReducer,
    of_event,
    read_only,
)
from xsmall.vocabulary import ERROR, FAILED, LEFT_OUT, LONG_NAME, MISSING, PIXEL_DIMS

__all__ = ["UserRecord", "record"]

Function = Callable[..., Any]


@overload
def record(
    function: Function | str,
    *,
    outputs: Mapping[str, Any] | None = ...,
    variance: bool = ...,
    batch: bool = ...,
    beside: Mapping[str, xr.DataArray] | None = ...,
) -> UserRecord: ...
@overload
def record(
    function: None = ...,
    *,
    outputs: Mapping[str, Any] | None = ...,
    variance: bool = ...,
    batch: bool = ...,
    beside: Mapping[str, xr.DataArray] | None = ...,
) -> Callable[[Function], UserRecord]: ...
def record(
    function: Function | str | None = None,
    *,
    outputs: Mapping[str, Any] | None = None,
    variance: bool = False,
    batch: bool = False,
    beside: Mapping[str, xr.DataArray] | None = None,
) -> UserRecord | Callable[[Function], UserRecord]:
    """Make a record of your own function of one frame.

    Parameters
    ----------
    function
        Takes the frame of one event, float (segment, row, column), NaN where a pixel is not valid, and returns a
        number, an array, a list of its own length, or a mapping of names to these. NumPy or a compiled function of
        numba, which then runs without the GIL; or the name of one that can be imported, ``"module:function"``. It has
        to be one that can be sent to workers. Left out, ``xs.record`` is a decorator, with options or without.
    outputs
        What comes back, by name: a dtype for a number, or an :class:`~xsmall.Output`. Left out, the function is called
        with a frame of ones, and dims are named ``<name>_0``, ``<name>_1``; an array of one dim is a list where it has
        no values then, or another number of them for a frame of zeros with a pixel that is not valid.
    variance
        Whether the function takes the variance of each pixel as its second argument.
    batch
        Whether the function takes the frames of a few events at once, (event, segment, row, column), and returns for
        each name an array, or a list, with one entry for each of them. How many there are must not matter to an event.
    beside
        What else the function takes of the same event, by keyword: frames of other detectors, or values (event, ...)
        such as ``i0``. They are joined by the label ``event``; segments, rows and columns that have the labels of those
        of the frames come in their order. The function is called where all of them are there.

    Returns
    -------
    A record. Its variables are named as in the mapping, or ``value``; besides ``failed`` (event), bool, where the
    function raised or returned another shape, ``error`` (event), the beginning of what it said, and with ``beside``
    also ``missing`` (event), which of its arguments the event does not have. There floats are NaN, integers 0 and lists
    empty; cubes, cuts and exposures look at these flags, and do not count such a 0. The record can be called as the
    function itself.

    Raises
    ------
    ParameterError
        Something that is no function, that cannot be imported or sent to workers, or that fails on a frame of ones.
    DataError
        Something beside the frames whose events are none of theirs.

    Notes
    -----
    Every chunk is read and calibrated once, together with all other records. The frames are views of those of the
    pass: they must not be kept. A function that writes to its frame gets a copy from then on. Provenance names the
    function and the hash of its source. Cost: that of the call, and a copy of the frame where it is written to.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> @xs.record(outputs={"total": "f8", "bright": "i4"})
    ... def mine(frame):
    ...     return {"total": np.nansum(frame), "bright": (frame > 5).sum()}
    >>> small = cal.sd.reduce({"mine": mine, "rows": xs.projection("row")})
    >>> small["mine_total"].dims, str(small["mine_bright"].dtype), int(small["mine_failed"].sum())
    (('event',), 'int32', 0)
    """
    if function is None:
        return functools.partial(record, outputs=outputs, variance=variance, batch=batch, beside=beside)
    if isinstance(function, str):
        function = _imported(function)
        if isinstance(function, UserRecord):
            return function
    if not callable(function):
        raise ParameterError(
            "a record is made of a function",
            found=type(function).__name__,
            expected="a function of one frame (segment, row, column)",
            fix="xs.record(lambda frame: np.nansum(frame))",
        )
    declared = (
        None if outputs is None else tuple((str(k), _output(k, said)) for k, said in _with_names(outputs).items())
    )
    made = UserRecord(
        function, declared, bool(variance), _digest(function), bool(batch), given=dict(beside) if beside else None
    )
    asked = {FUNCTION: function, "outputs": outputs, "variance": variance, "batch": batch, "beside": beside}
    return remember(made, "function", {key: value for key, value in asked.items() if value})


def _in_the_order_of(frames: xr.DataArray, given: Any) -> Any:
    """Segments, rows and columns as the frames have them, where both have the same labels."""
    if not isinstance(given, xr.DataArray):
        return given  # which is refused later
    for dim in PIXEL_DIMS:
        ours, theirs = frames.indexes.get(dim), given.indexes.get(dim)
        if ours is None or theirs is None or len(ours) != len(theirs) or not theirs.is_unique or ours.equals(theirs):
            continue
        at = theirs.get_indexer(ours)
        if (at >= 0).all():
            given = given.isel({dim: at})
    return given


def _imported(name: str) -> Any:
    """The function that ``"module:function"`` names."""
    module, _, function = name.partition(":")
    try:
        found = functools.reduce(getattr, function.split("."), importlib.import_module(module))
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise ParameterError(
            f"no function {name!r}",
            found=f"{type(error).__name__}: {error}"[:200],
            expected='"module:function", a function in a module that Python can import',
            fix="put the folder of the module into PYTHONPATH, here and for the workers",
        ) from error
    return found


_OUTPUTS: Final = 'outputs={"total": "f8", "profile": xs.Output(("row",), (32,), np.dtype("f8"))}'


def _with_names(outputs: Any) -> Mapping[str, Any]:
    if not isinstance(outputs, Mapping) or not outputs:
        raise ParameterError(
            "outputs of a function have names", found=repr(outputs)[:80], expected="a mapping", fix=_OUTPUTS
        )
    return outputs


def _output(name: str, said: Any) -> Output:
    if name in (FAILED, ERROR, MISSING):
        raise ParameterError(f"an output cannot be called {name!r}", found=name, fix="another name")
    try:
        output = said if isinstance(said, Output) else Output((), (), np.dtype(said))
    except TypeError:
        output = None
    if output is None or output.dtype.kind not in NUMBERS:
        raise ParameterError(
            f"output {name!r} of a function",
            found=repr(said)[:80],
            expected="a dtype of real numbers or truth values, or an Output of such",
            fix=_OUTPUTS,
        )
    return output


def _digest(function: Function) -> str:
    """Hash of the function as workers get it."""
    try:
        return hashlib.sha256(_packed(function) + _source_hash(function).encode()).hexdigest()
    except Exception as error:
        raise ParameterError(
            "the function cannot be sent to workers",
            found=f"{type(error).__name__}: {error}"[:200],
            expected="a function that does not hold files, locks or other things of this process",
            fix="open what it needs inside the function",
        ) from error


def _packed(function: Function) -> bytes:
    from distributed.protocol.pickle import dumps, logger

    me = threading.get_ident()

    def of_others(told: logging.LogRecord) -> bool:  # a failure is raised, and is not printed at length before
        return told.thread != me

    logger.addFilter(of_others)
    try:
        packed: bytes = dumps(function)
    finally:
        logger.removeFilter(of_others)
    return packed


@dataclass(frozen=True)
class UserRecord(Record):
    """A function of a frame and what it returns; made by :func:`record`."""

    name: ClassVar[str] = "user"

    function: Function
    declared: tuple[tuple[str, Output], ...] | None
    with_variance: bool
    digest: str
    batch: bool = False
    first: str | None = None
    """Keyword of the frames, or None where they are the first argument."""
    inputs: tuple[Input, ...] = ()
    """What lies beside the frames, as far as it is known in the pass."""
    left_out: str = ""
    """How many events of what lies beside the frames are none of theirs."""
    given: Mapping[str, xr.DataArray] | None = field(default=None, compare=False, repr=False)
    """What a user gave to lie beside the frames: only before the pass."""

    @property
    def beside(self) -> Mapping[str, xr.DataArray]:
        """What is to lie beside the frames."""
        return self.given or {}

    def seeing(self, frames: xr.DataArray) -> UserRecord:
        """Bring what lies beside the frames to their order of pixels, of which the function knows no labels."""
        return replace(self, given={k: _in_the_order_of(frames, x) for k, x in self.beside.items()} or None)

    def bound(self, inputs: Mapping[str, Input], left_out: str) -> UserRecord:
        """Make the record that knows what lies beside the frames."""
        own = tuple(replace(given, keyword=keyword) for keyword, given in inputs.items())  # by its own names
        return replace(self, inputs=own, left_out=left_out, given=None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself."""
        return self.function(*args, **kwargs)

    def after(self, first: Record) -> Record:
        """Refuse: a function takes whole frames, also those that photons make."""
        raise ParameterError(
            f"a function takes frames, and {first.name} makes none",
            found=f"{first.name} | {self!r}",
            expected="the function alone, or behind pictures of photons",
            fix="cal.sel(row=slice(0, 20), column=slice(0, 30)).sd.apply(lambda frame: np.nansum(frame))",
        )

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
        """Describe what the function returns, where it failed, and what it lacked."""
        out = {
            **self.values(_with_arguments(self, frames)),
            FAILED: Output((), (), np.dtype(bool)),
            ERROR: Output((), (), np.dtype(f"U{ERROR_LENGTH}")),
        }
        if self.inputs:
            said = {LONG_NAME: "what of its arguments an event does not have", LEFT_OUT: self.left_out}
            out[MISSING] = Output((), (), self._missing, said)
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return UserReducer(
            Caller(self.function, self.first), self.values(frames),
            variance=self.with_variance, batch=self.batch, first=self.first, inputs=self.inputs,
            missing=self._missing,
        )  # fmt: skip

    @property
    def _missing(self) -> np.dtype[Any]:
        """Dtype of a list of what is missing."""
        return np.dtype(f"U{len(', '.join([self.first or FRAMES, *(i.keyword for i in self.inputs)]))}")

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return "UserRecord", self.digest, self.declared, self.with_variance, self.batch, self.first, self.inputs

    def __hash__(self) -> int:
        return hash((self.digest, self.with_variance, self.batch, self.first, self.inputs))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the function by value where its name means this record, as a decorated one's does."""
        rest = (self.declared, self.with_variance, self.digest, self.batch, self.first, self.inputs, self.left_out)
        return _unpickled_record, (_packed(self.function), *rest)

    def __repr__(self) -> str:
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        more = ", batch=True" if self.batch else ""
        takes = f", beside=({', '.join(i.keyword for i in self.inputs)})" if self.inputs else ""
        return f"record({name}, {_source_hash(self.function)}, variance={self.with_variance}{more}{takes})"


def _unpickled_record(function: bytes, *rest: Any) -> UserRecord:
    from distributed.protocol.pickle import loads

    return UserRecord(loads(function), *rest)


def _source_hash(function: Function) -> str:
    """Hash of the source text, by which a result tells which code made it."""
    try:
        text = inspect.getsource(getattr(function, "py_func", function))
    except (OSError, TypeError):
        return "source not known"
    return f"source sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _real_numbers(value: Any) -> npt.NDArray[Any] | None:
    """Return an array of real numbers; None of anything else, as of lists of lists that differ in length."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array if array.dtype.kind in NUMBERS and not (isinstance(value, list) and array.ndim != 1) else None


def _with_arguments(record: UserRecord, frames: Frames) -> Frames:
    """The frames; raise where the function takes other arguments than it will be given."""
    given = [i.keyword for i in record.inputs]
    try:
        signature = inspect.signature(getattr(record.function, "py_func", record.function))
    except (TypeError, ValueError):  # of compiled functions of others, which do not say it
        return frames
    try:
        if record.first is None:
            signature.bind(*[None] * (1 + record.with_variance), **dict.fromkeys(given))
        else:
            given = [record.first, *given]
            signature.bind(**dict.fromkeys(given))
    except TypeError as error:
        name = getattr(record.function, "__name__", "function")
        name = name if name.isidentifier() else "function"
        takes = list(signature.parameters)[0 if record.first else 1 + record.with_variance :]
        words = ", ".join([name, *(f"{p}=..." for p in takes)])
        raise ParameterError(
            "the function takes other arguments than it is given",
            found=f"{error}; given {', '.join(given) or 'the frame alone'}",
            expected=f"{name}({', '.join(signature.parameters)})",
            fix=f"xs.apply({words})" if record.first else f".sd.apply({words})",
        ) from None
    return frames


def _called_with(record: UserRecord, shape: tuple[int, int, int], dtype: np.dtype[Any], *, ones: bool) -> Any:
    """What the function returns for a frame of ones, or one of zeros in which a pixel of each segment is not valid."""
    lead = (1,) * record.batch

    def made(shape: tuple[int, ...], dtype: np.dtype[Any], *, valid: bool) -> Any:
        values = np.ones((*lead, *shape), dtype) if ones else np.zeros((*lead, *shape), dtype)
        if not (ones or valid):
            values[..., 0, 0] = np.nan
        return read_only(values)

    frames = [made(shape, dtype, valid=False) for _ in range(1 + record.with_variance)]
    beside = {i.keyword: made(i.shape, i.dtype, valid=True) for i in record.inputs}
    found = Caller(record.function, record.first)(frames, beside)
    return of_event(found, 0, 1) if record.batch else found


def _other_lengths(record: UserRecord, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Lengths of the arrays of one dim that the function returns for another frame than one of ones."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _called_with(record, shape, dtype, ones=False)
        return {name: np.shape(value) for name, value in found.items()}
    except (Exception, SystemExit):  # a frame that it does not take tells nothing
        return {}


@functools.lru_cache(maxsize=64)
def _inferred(record: UserRecord, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> tuple[tuple[str, Output], ...]:
    """What the function returns for a frame of ones; an array is a list where its length is not always the same."""
    try:
        found = _called_with(record, shape, dtype, ones=True)
    except (Exception, SystemExit) as error:
        raise ParameterError(
            "the function fails on a frame of ones, so that what it returns is not known",
            found=f"{type(error).__name__}: {error}"[:200],
            expected=f"a function of {'frames' if record.batch else 'one frame'} {(1,) * record.batch + shape}",
            fix='say what it returns: outputs={"value": "f8"}',
        ) from error
    out = {}
    lines = [k for k, value in found.items() if isinstance(value, np.ndarray) and value.ndim == 1]
    other = _other_lengths(record, shape, dtype) if any(found[k].size for k in lines) else {}
    for name, value in found.items():
        array = _real_numbers(value)
        if array is None:
            raise ParameterError(
                f"the function returns what is no number: {name!r}",
                found=repr(value)[:80],
                expected="numbers, arrays or a list of them",
            )
        if isinstance(value, list):
            out[name] = _output(name, Output((f"{name}_0",), (None,), np.dtype(np.float64)))
        elif name in lines and (not array.size or array.shape != other.get(name, array.shape)):
            out[name] = _output(name, Output((f"{name}_0",), (None,), array.dtype))
        else:
            out[name] = _output(name, Output(tuple(f"{name}_{i}" for i in range(array.ndim)), array.shape, array.dtype))
    return tuple(out.items())
