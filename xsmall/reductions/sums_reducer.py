"""What adds up groups of events: exact sums, extremes and counts, by class of shots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.engine.record import Reducer, Totals
from xsmall.events.borders import met
from xsmall.events.unknown import COUNTED
from xsmall.vocabulary import (
    COUNT,
    ERROR,
    FAILED,
    HISTOGRAM,
    MAX,
    MEAN,
    MIN,
    MISSING,
    N_ABOVE,
    N_DROPPED_SHOTS,
    N_EVENTS,
    N_WITHOUT_CLASS,
    STD_SUFFIX,
    STDERR_SUFFIX,
    SUM,
    VARIANCE_SUFFIX,
)

__all__ = ["Stream", "SumsReducer", "WantedSums"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class WantedSums:
    """What is told of each pixel beside mean, spread and count."""

    also: tuple[str, ...] = ()
    level: float | None = None
    edges: tuple[float, ...] | None = None

    @property
    def extremes(self) -> bool:
        """Whether the lowest or the highest value is wanted."""
        return MIN in self.also or MAX in self.also


@dataclass(frozen=True)
class Stream:
    """Something that each event has one of: the frame itself, or a variable of another record."""

    prefix: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]
    variance: bool

    @property
    def size(self) -> int:
        """Values of an event."""
        return int(np.prod(self.shape, dtype=np.int64))


class Sum:
    """The sums of one stream: arrays by their names, (class, ..., pixel) each."""

    def __init__(self, stream: Stream, wanted: WantedSums, n: int) -> None:
        size = stream.size
        self.arrays: dict[str, Array] = {"sums": np.zeros((n, 4, size)), COUNT: np.zeros((n, size), np.uint32)}
        if stream.variance:
            self.arrays["variance"] = np.zeros((n, 2, size))
        if wanted.extremes:
            self.arrays |= {MIN: np.full((n, size), np.inf, stream.dtype)}
            self.arrays |= {MAX: np.full((n, size), -np.inf, stream.dtype)}
        if wanted.level is not None:
            self.arrays[N_ABOVE] = np.zeros((n, size), np.uint32)
        if wanted.edges is not None:
            self.arrays[HISTOGRAM] = np.zeros((n, size, len(wanted.edges) + 1), np.uint32)

    def add(self, values: Array, variances: Array | None, classes: Array, wanted: WantedSums, at: int) -> None:
        """Add values (k, pixel) from pixel ``at`` on."""
        from xsmall.kernels import sums as kernel

        own = self.arrays
        kernel.add(values, classes, own["sums"], own[COUNT], at)
        if variances is not None:
            kernel.add_values_where(values, variances, classes, own["variance"], at)
        if wanted.extremes:
            kernel.add_extremes(values, classes, own[MIN], own[MAX], at)
        if wanted.level is not None:
            level = float(met(np.array([wanted.level]), values.dtype)[0])
            kernel.add_above(values, classes, level, own[N_ABOVE], at)
        if wanted.edges is not None:
            edges = np.array(wanted.edges)
            width = np.diff(edges)
            even = np.allclose(width, width[0], rtol=1e-6, atol=0)
            per_width = 1 / width.mean() if even else 0.0
            kernel.add_histogram(values, classes, met(edges, values.dtype), per_width, own[HISTOGRAM], at)

    def joined(self, other: Sum) -> Sum:
        """The sums of both."""
        from xsmall.kernels import sums as kernel

        out = Sum.__new__(Sum)
        out.arrays = {}
        for name, mine in self.arrays.items():
            theirs = other.arrays[name]
            if name in ("sums", "variance"):
                out.arrays[name] = mine.copy()
                kernel.join(out.arrays[name], theirs)
            else:
                out.arrays[name] = (np.minimum if name == MIN else np.maximum if name == MAX else np.add)(mine, theirs)
        return out


class Gathered(Totals):
    """All sums of a record, and how many events are in each class, dropped, and of none."""

    def __init__(self, streams: tuple[Stream, ...], wanted: WantedSums, n: int | None, use: Array | None) -> None:
        self.streams, self.wanted, self.n, self.use = streams, wanted, n, use
        self.sums = [Sum(stream, wanted, n or 1) for stream in streams]
        self.events = np.zeros((n or 1) + 2, np.int64)

    def joined(self, other: Any) -> Gathered:
        """What both have gathered."""
        out = Gathered.__new__(Gathered)
        out.streams, out.wanted, out.n, out.use = self.streams, self.wanted, self.n, self.use
        out.sums = [a.joined(b) for a, b in zip(self.sums, other.sums, strict=True)]
        out.events = self.events + other.events
        return out

    def finish(self) -> Mapping[str, Array]:
        """Turn sums into means, spreads and errors."""
        out: dict[str, Array] = {}
        for stream, summed in zip(self.streams, self.sums, strict=True):
            for name, values in self._of(stream, summed.arrays).items():
                out[f"{stream.prefix}{name}"] = values if self.n is not None else values[0]
        out[N_EVENTS] = self.events[:-2] if self.n is not None else self.events[0]
        return out | {N_DROPPED_SHOTS: self.events[-2], N_WITHOUT_CLASS: self.events[-1]}

    def arrays(self) -> dict[str, Array]:
        """All sums and counts."""
        own = {f"{i}.{key}": values for i, one in enumerate(self.sums) for key, values in one.arrays.items()}
        return own | {N_EVENTS: self.events}

    def _of(self, stream: Stream, arrays: dict[str, Array]) -> dict[str, Array]:
        from xsmall.kernels import sums as kernel
        from xsmall.kernels.moments import standard_error

        n, shape = self.n or 1, stream.shape
        count = arrays[COUNT] if self.use is None else np.where(self.use.ravel(), arrays[COUNT], 0).astype(np.uint32)
        total, mean, std, error = (np.empty((n, stream.size)) for _ in range(4))
        for c in range(n):
            kernel.finish(arrays["sums"][c], count[c], total[c], mean[c], std[c])
        number = count.astype(np.int32)
        standard_error(std.reshape(-1), number.reshape(-1), error.reshape(-1))
        flat: dict[str, Array] = {
            MEAN: mean, STD_SUFFIX.removeprefix("_"): std, STDERR_SUFFIX.removeprefix("_"): error, COUNT: number,
        }  # fmt: skip
        if stream.variance:
            variances = np.empty((n, stream.size))
            for c in range(n):
                kernel.mean_of(arrays["variance"][c], count[c], 2, variances[c])
            flat[f"{MEAN}{VARIANCE_SUFFIX}"] = variances
        if SUM in self.wanted.also:
            flat[SUM] = total
        for name in (MIN, MAX):
            if name in self.wanted.also:
                flat[name] = np.where(count > 0, arrays[name], np.nan).astype(stream.dtype)
        used = count > 0
        if self.wanted.level is not None:
            flat[N_ABOVE] = np.where(used, arrays[N_ABOVE], 0).astype(np.int32)
        out = {name: values.reshape(n, *shape) for name, values in flat.items()}
        if self.wanted.edges is not None:
            found = np.where(used[..., None], arrays[HISTOGRAM], 0).astype(np.int32).reshape(n, *shape, -1)
            out |= {
                HISTOGRAM: found[..., 1:-1],
                f"{HISTOGRAM}_below": found[..., 0],
                f"{HISTOGRAM}_above": found[..., -1],
            }
        return out


def _without_values(made: Mapping[str, Array], name: str) -> npt.NDArray[np.bool_] | None:
    """In which events a whole number is 0 and no value, as :mod:`xsmall.events.unknown` says of results."""
    for flag, counts in COUNTED.items():
        if name in counts and counts[0] in made and flag in made:
            nothing: npt.NDArray[np.bool_] = np.equal(made[flag].reshape(len(made[flag]), -1).max(axis=1), 0)
            return nothing
    if FAILED not in made or ERROR not in made or name == FAILED:
        return None
    failed: npt.NDArray[np.bool_] = made[FAILED]
    return failed | (made[MISSING] != "") if MISSING in made else failed


class SumsReducer(Reducer):
    """Adds the frames of each group, or what another reducer makes of them, to the sums of their class."""

    def __init__(
        self,
        streams: tuple[Stream, ...],
        wanted: WantedSums,
        n: int | None,
        use: Array | None,
        inner: Reducer | None,
        class_name: str | None,
        lit_name: str | None,
    ) -> None:
        self._gathered = Gathered(streams, wanted, n, use)
        self._wanted, self._inner = wanted, inner
        self._names = class_name, lit_name
        self.takes_whole_frames = inner is not None and inner.takes_whole_frames  # type: ignore[misc]

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events: which class each is of."""
        if self._inner is not None:
            self._inner.energy, self._inner.beside = self.energy, self.beside
            self._inner.begin(k)
        by, lit = (None if name is None else self.beside[name] for name in self._names)
        classes = np.zeros(k, np.int64)
        if by is not None:
            classes = np.where(by[1], by[0].reshape(k), -1).astype(np.int64)
        dark = np.zeros(k, bool) if lit is None else lit[1] & ~lit[0].reshape(k).astype(bool)
        events = self._gathered.events
        events[-2] += dark.sum()
        events[-1] += (~dark & (classes < 0)).sum()
        self._classes = np.where(dark, -1, classes)
        events[:-2] += np.bincount(self._classes[self._classes >= 0], minlength=events.size - 2)

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Take segment ``s``."""
        if self._inner is not None:
            self._inner.add(s, frames, variance)
            return
        k, pixels = len(frames), frames[0].size
        variances = None if variance is None else np.ascontiguousarray(variance).reshape(k, pixels)
        flat = np.ascontiguousarray(frames).reshape(k, pixels)
        self._gathered.sums[0].add(flat, variances, self._classes, self._wanted, s * pixels)

    def whole(self, frames: npt.NDArray[np.floating[Any]], variance: Any, here: Any) -> None:
        """Take whole frames, for another reducer."""
        assert self._inner is not None
        self._inner.whole(frames, variance, here)

    def end(self) -> Mapping[str, Array]:
        """Add what another reducer has made; nothing comes back for single events."""
        if self._inner is not None:
            made, k = self._inner.end(), len(self._classes)
            for stream, summed in zip(self._gathered.streams, self._gathered.sums, strict=True):
                name = stream.prefix.removesuffix("_")
                values = np.ascontiguousarray(made[name], stream.dtype).reshape(k, -1)
                unknown = _without_values(made, name)
                if unknown is not None and made[name].dtype.kind != "f":
                    values[unknown] = np.nan  # of a copy: these were no floats
                variances = made[f"{name}{VARIANCE_SUFFIX}"].reshape(k, -1) if stream.variance else None
                summed.add(values, variances, self._classes, self._wanted, 0)
        return {}

    def totals(self) -> Gathered:
        """All that was added."""
        return self._gathered
