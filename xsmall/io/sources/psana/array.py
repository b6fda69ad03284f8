"""What psana makes of each event of a run, as a lazy array over events."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.engine.faults import unreadable
from xsmall.errors import DamagedDataError, DataError, FileFormatError
from xsmall.io.sources.psana.program import LOCK, ConstantsOfRun, psana_run
from xsmall.io.sources.xtc2.fields import FieldKey, event_fields_of, presence
from xsmall.io.sources.xtc2.run_index import RunFiles, run_of

__all__ = ["Evaluated", "PsanaArray", "as_array", "complete"]


@dataclass(frozen=True)
class Evaluated:
    """What is evaluated for each event.

    Attributes
    ----------
    name
        What it is called in errors.
    detector
        psana's name of the detector.
    what
        ``interface.method``, or a function of (detector, event).
    """

    name: str
    detector: str
    what: str | Callable[[Any, Any], Any]

    def __call__(self, detector: Any, event: Any) -> Any:
        """Evaluate it."""
        if not isinstance(self.what, str):
            return self.what(detector, event)
        return operator.attrgetter(self.what)(detector)(event)


def as_array(value: Any, name: str) -> npt.NDArray[Any] | None:
    """Bring a value to an array; None stays None.

    Raises
    ------
    DataError
        It is something else than numbers, truth values or text.
    """
    if value is None:
        return None
    array = np.asarray(value) if isinstance(value, int | float | bool | str | np.generic | np.ndarray) else None
    if array is None or array.dtype.kind not in "iufbU":
        raise DataError(
            f"{name} is no array",
            found=type(value).__name__,
            expected="a number, text, or an array of them, or None",
            fix='a function that makes one: read={"peaks": ("hsd", lambda det, evt: ...)}',
        )
    return array


def complete(files: RunFiles, evaluated: Evaluated) -> npt.NDArray[np.bool_]:
    """Whether an event has all segments of what is evaluated; psana has nothing for the others."""
    interface = evaluated.what.split(".")[0] if isinstance(evaluated.what, str) else None
    of_interface: dict[str, FieldKey] = {}
    for key in event_fields_of(files):
        if key.detector == evaluated.detector and interface in (None, key.alg):
            of_interface.setdefault(key.alg, key)
    there = np.zeros(run_of(files).size, bool)
    for key in of_interface.values():
        there |= presence(files, key).all(axis=1)
    return there


class PsanaArray:
    """Values of psana as an array (event, ...) that evaluates when it is indexed.

    Parameters
    ----------
    files
        The bytes of the run.
    evaluated
        What is evaluated.
    constants
        Documents of the constants that psana is handed.
    usable
        Which pixels psana uses; None: all. It sets the others to 0, here they are NaN.
    first
        Value of one event, which says shape and type.
    """

    def __init__(
        self,
        files: RunFiles,
        evaluated: Evaluated,
        constants: ConstantsOfRun,
        usable: npt.NDArray[np.bool_] | None,
        first: npt.NDArray[Any],
    ) -> None:
        self.files, self.evaluated, self.constants, self.usable = files, evaluated, constants, usable
        self.dtype = first.dtype if first.dtype.kind != "U" else np.dtype(object)
        self.shape: tuple[int, ...] = (run_of(files).size, *first.shape)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Evaluate the events that ``key`` selects; what psana has nothing for is NaN, 0 or empty text."""
        keys = key if isinstance(key, tuple) else (key,)
        chosen = np.arange(self.shape[0])[keys[0]]
        events = np.atleast_1d(chosen)
        out = np.empty((events.size, *self.shape[1:]), self.dtype)
        missing = np.nan if self.dtype.kind == "f" else "" if self.dtype.kind == "O" else 0
        there = complete(self.files, self.evaluated)
        with LOCK:
            run = psana_run(self.files, self.constants)
            for k, number in enumerate(events.tolist()):
                value = self._value(run, number) if there[number] else None
                out[k, ...] = missing if value is None else value
        if self.usable is not None and self.dtype.kind == "f":
            out[:, ~self.usable] = np.nan
        inner = (slice(None), *keys[1:]) if np.ndim(chosen) else (0, *keys[1:])
        return np.asarray(out[inner])

    def _value(self, run: Any, number: int) -> Any:
        try:
            value = as_array(run.evaluate(self.evaluated, self.evaluated.detector, number), self.evaluated.name)
        except (OSError, FileFormatError) as error:
            told = DamagedDataError(f"{self.files.path}, event {number}: cannot be read", found=str(error))
            return unreadable(told, self.dtype)
        if value is not None and (
            value.shape != self.shape[1:] or (value.dtype != self.dtype and self.dtype != object)
        ):
            raise DataError(
                f"{self.files.path}: {self.evaluated.name} is of another form in event {number}",
                found=f"{value.dtype} {value.shape}",
                expected=f"{self.dtype} {self.shape[1:]}, as in the first event",
                fix="read= with a function that gives the same form for every event",
            )
        return value
