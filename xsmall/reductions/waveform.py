"""Waveforms of diodes and digitizers: integrals in windows, and the times of hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import DataError, ParameterError
from xsmall.events.ragged import lists_of_counts
from xsmall.reductions.arguments import one_of, real_number, whole_number
from xsmall.reductions.box import in_order
from xsmall.reductions.threshold import Sigma
from xsmall.vocabulary import (
    AMPLITUDE,
    BACKGROUND,
    BACKGROUND_NOISE,
    CHANNEL,
    DIMENSIONLESS,
    HIT,
    INTEGRAL,
    N_HITS,
    N_VALID,
    SAMPLE,
    SAMPLE_DIMENSION,
    TIME,
    UNITS,
    VARIANCE_SUFFIX,
    WIDTH,
    WINDOW,
)

__all__ = [
    "Baseline",
    "SampleSpan",
    "baseline_of",
    "check_waves",
    "per_channel",
    "span_of",
    "waveform_hits",
    "waveform_integral",
]

SampleSpan = tuple[int, int]
"""First sample and the one after the last, as labels."""
_OF_CHANNEL: Final = f"{N_HITS}_of_{CHANNEL}"
_OF_MEDIAN: Final = np.pi / 2  # variance of a median relative to that of a mean


@dataclass(frozen=True)
class Baseline:
    """Where the level of a waveform without signal is taken, how, and which way its pulses go."""

    window: SampleSpan | None
    median: bool
    sign: float

    def error(self, noise: float, n: float) -> float:
        """Variance of the level."""
        return noise**2 / n * (_OF_MEDIAN if self.median else 1.0) if n else 0.0


def baseline_of(background: Any, baseline: str, polarity: str) -> Baseline:
    """Check the arguments that all reductions of waveforms have."""
    one_of("baseline", baseline, ("median", "mean"))
    one_of("polarity", polarity, ("positive", "negative"))
    window = None if background is None else span_of(background, "background")
    if window is None and baseline != "median":
        raise ParameterError(
            "a baseline is taken from a background",
            found=f"baseline={baseline!r} without background",
            fix="background=(0, 100), without signal",
        )
    return Baseline(window, baseline == "median", 1.0 if polarity == "positive" else -1.0)


def span_of(given: Any, what: str) -> SampleSpan:
    """Check a window of samples."""
    pair = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else ()
    whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in pair)
    if len(pair) != 2 or not whole or not pair[0] < pair[1]:
        raise ParameterError(
            f"{what} is no window of samples",
            found=repr(given),
            expected="(first, last + 1), whole numbers",
            fix=f"{what}=(100, 160)",
        )
    return int(pair[0]), int(pair[1])


def check_waves(frames: Frames, *windows: SampleSpan | None) -> None:
    """Raise unless these are waveforms that have all samples of the windows."""
    if frames.shape[1] != 1:
        raise DataError(
            "no waveforms",
            found=f"frames of {frames.shape[1]} rows",
            expected=f"waveforms (event, {SAMPLE}) or (event, {CHANNEL}, {SAMPLE})",
            fix=f'.rename(my_dim="{SAMPLE}"), or xs.waveforms(lists) of a digitizer',
        )
    in_order(frames.column, SAMPLE, "a waveform")
    for window in windows:
        if window is not None and not (min(frames.column) <= window[0] and window[1] <= max(frames.column) + 1):
            raise ParameterError(
                "a window reaches beyond the waveform",
                found=f"samples {window[0]} to {window[1] - 1}",
                expected=f"samples {min(frames.column)} to {max(frames.column)}",
            )


def at(window: SampleSpan | None, frames: Frames) -> SampleSpan:
    """Positions of a window; nothing where there is none."""
    first = min(frames.column)
    return (0, 0) if window is None else (window[0] - first, window[1] - first)


def per_channel(frames: Frames) -> dict[str, xr.Variable]:
    """The coordinate of the channels."""
    return {CHANNEL: xr.Variable((CHANNEL,), np.array(frames.segment))}


class WaveReducer(Reducer):
    """Takes the waveforms of a group, in the order of their samples."""

    def __init__(self, frames: Frames) -> None:
        order = in_order(frames.column, SAMPLE, "a waveform")
        self._rising = bool((np.diff(order) > 0).all())
        self._order = order
        self._channels = frames.shape[0]
        self._first = min(frames.column)
        self._level = np.empty(3)

    def rows(self, frames: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        """(k, sample)."""
        rows = frames[:, 0]
        return np.ascontiguousarray(rows if self._rising else rows[:, self._order])


def waveform_integral(
    signal: Any,
    background: tuple[int, int] | None = None,
    *,
    baseline: Literal["median", "mean"] = "median",
    polarity: Literal["positive", "negative"] = "positive",
) -> Record:
    """Integrate pulses of waveforms above their baseline, in one window or several.

    Parameters
    ----------
    signal
        Window of samples (first, last + 1), by the labels of ``sample``; or several by name.
    background
        Window without signal, from which baseline and noise are taken. Without it the baseline is 0.
    baseline
        Of the background's samples.
    polarity
        Which way the pulses go.

    Returns
    -------
    A record, for waveforms (event, sample) or (event, channel, sample). Its variables over (event, channel, window),
    the last two where there are several: ``integral``, the sum above the baseline, ``amplitude``, the highest sample
    above it, both in the unit of the data and positive in the direction of the pulse, and ``time``, the label of that
    sample, float64; ``n_valid`` (int32), samples in the window. With ``background`` also ``background`` and
    ``background_noise`` (event, channel), its level and standard deviation, and ``integral_variance``.

    Raises
    ------
    ParameterError
        A window that is none, or reaches beyond the waveform.
    DataError
        No waveforms.

    Notes
    -----
    Samples that are NaN are left out. The variance is n s^2 + n^2 v for n samples of noise s, where v is that of the
    baseline: s^2 / m of a mean of m samples, pi/2 times it of a median; it holds for white noise. Cost: some 2 ns per
    sample of the windows, 40 for the sort of a median.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> waves = xr.DataArray(np.full((3, 2, 50), 7.0), dims=("event", "channel", "sample"))
    >>> waves[:, :, 20:25] += 2
    >>> found = waves.sd.waveform_integral((15, 30), (0, 10))
    >>> found["integral"].dims, found["integral"].values[0].tolist()
    (('event', 'channel'), [10.0, 10.0])
    """
    named = signal if isinstance(signal, Mapping) else {"": signal}
    windows = tuple((str(name), span_of(window, "signal")) for name, window in named.items())
    if not windows:
        raise ParameterError("no window", found=repr(signal), fix='{"first": (100, 160), "second": (300, 360)}')
    return Integral(windows, isinstance(signal, Mapping), baseline_of(background, baseline, polarity))


@dataclass(frozen=True)
class Integral(Record):
    """Windows and baseline; made by :func:`waveform_integral`."""

    name: ClassVar[str] = "waveform_integral"

    windows: tuple[tuple[str, SampleSpan], ...]
    named: bool
    baseline: Baseline

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe integrals, amplitudes and the background."""
        check_waves(frames, self.baseline.window, *(window for _, window in self.windows))
        units = {} if frames.units is None else {UNITS: frames.units}
        squared = {} if frames.units is None else {UNITS: f"({frames.units})2"}
        none, double = {UNITS: DIMENSIONLESS}, np.dtype(np.float64)
        dims = (CHANNEL, *([WINDOW] if self.named else []))
        shape: tuple[int, ...] = (frames.shape[0], *([len(self.windows)] if self.named else []))
        out = {name: Output(dims, shape, double, units) for name in (INTEGRAL, AMPLITUDE)}
        out |= {TIME: Output(dims, shape, double, none), N_VALID: Output(dims, shape, np.dtype(np.int32), none)}
        if self.baseline.window is not None:
            out[f"{INTEGRAL}{VARIANCE_SUFFIX}"] = Output(dims, shape, double, squared)
            out |= {n: Output(dims[:1], shape[:1], double, units) for n in (BACKGROUND, BACKGROUND_NOISE)}
        return out

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Channels, and names of windows."""
        names = {WINDOW: xr.Variable((WINDOW,), np.array([n for n, _ in self.windows]))} if self.named else {}
        return per_channel(frames) | names

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return IntegralReducer(self, frames)


class IntegralReducer(WaveReducer):
    """Integrates the waveforms of a group."""

    def __init__(self, record: Integral, frames: Frames) -> None:
        super().__init__(frames)
        self._record = record
        self._background = at(record.baseline.window, frames)
        self._windows = [at(window, frames) for _, window in record.windows]

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._found = np.empty((k, self._channels, len(self._windows), 4))
        self._variance = np.empty(self._found.shape[:3])
        self._levels = np.empty((k, self._channels, 3))

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Integrate channel ``s``."""
        from xsmall.kernels.waveform import baseline, integral

        del variance  # the noise is that of the background
        how = self._record.baseline
        for j, wave in enumerate(self.rows(frames)):
            level = self._levels[j, s]
            baseline(wave, *self._background, how.median, level)
            for w, (start, stop) in enumerate(self._windows):
                found = self._found[j, s, w]
                integral(wave, start, stop, level[0], how.sign, found)
                n = found[3]
                self._variance[j, s, w] = n * level[1] ** 2 + n**2 * how.error(level[1], level[2]) if n else np.nan

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group."""
        pick: Any = slice(None) if self._record.named else 0
        total, highest, place, n = (self._found[..., pick, i].copy() for i in range(4))
        out: dict[str, npt.NDArray[Any]]
        out = {INTEGRAL: total, AMPLITUDE: highest, TIME: place + self._first, N_VALID: n.astype(np.int32)}
        if self._record.baseline.window is None:
            return out
        variances = {f"{INTEGRAL}{VARIANCE_SUFFIX}": self._variance[..., pick].copy()}
        return out | variances | {BACKGROUND: self._levels[..., 0], BACKGROUND_NOISE: self._levels[..., 1]}


def waveform_hits(
    threshold: float | Sigma,
    background: tuple[int, int] | None = None,
    *,
    window: tuple[int, int] | None = None,
    delay: int | None = None,
    fraction: float = 0.5,
    separation: int = 1,
    baseline: Literal["median", "mean"] = "median",
    polarity: Literal["positive", "negative"] = "positive",
) -> Record:
    """Find the hits of waveforms and their times: where they rise above a threshold, or at a constant fraction.

    Parameters
    ----------
    threshold
        Height above the baseline, in the unit of the data, or ``xs.sigma(5)``, 5 times the noise of the background.
    background
        Window of samples (first, last + 1) without signal; without it the baseline is 0.
    window
        Look at these samples only.
    delay
        Samples: the time is that of a constant-fraction discriminator, where ``fraction`` of the pulse minus the pulse
        ``delay`` later falls through zero; it does not depend on the height. Take about the rise time. Without it the
        time is where the threshold is crossed.
    fraction
        Of the pulse's height, between 0 and 1.
    separation
        Samples that the begins of two hits are apart at least; what comes earlier belongs to the first.
    baseline, polarity
        As in :func:`waveform_integral`.

    Returns
    -------
    A record, for waveforms (event, sample) or (event, channel, sample): ``n_hits`` (event), and of each channel
    ``n_hits_of_channel`` (event, channel), int32; lists per event over ``hit``, ordered by channel and time: ``time``,
    label of the sample, interpolated; ``amplitude``, the highest sample above the baseline, in the unit of the data;
    ``width``, samples above the threshold, interpolated; ``hit_channel`` (int32), the number of its channel. Time is
    NaN where the fraction is never crossed. A pulse that is above the threshold with the first sample has that as its
    time.

    Raises
    ------
    ParameterError
        A threshold that is not positive, or in sigma without background; a window that reaches beyond the waveform.
    DataError
        No waveforms.

    Notes
    -----
    Samples that are NaN lie below every threshold; waveforms whose background has no sample have no hits. Constant
    fraction: D. A. Gedcke and W. J. McDonald, Nuclear Instruments and Methods 55 (1967) 377. Cost: some 3 ns per
    sample.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> t = np.arange(200.0)
    >>> pulse = lambda height, begin: height * np.exp(-((t - begin) ** 2) / 50)
    >>> waves = xr.DataArray([pulse(10, 80), pulse(50, 80) + pulse(20, 150)], dims=("event", "sample"))
    >>> found = waves.sd.waveform_hits(3.0, delay=8, fraction=0.5)
    >>> found["n_hits"].values.tolist(), [times.round(2).tolist() for times in found["time"].values]
    ([1, 2], [[81.82], [81.82, 151.82]])
    """
    how = baseline_of(background, baseline, polarity)
    value = threshold.n if isinstance(threshold, Sigma) else threshold
    height = real_number("threshold", value, "a positive height above the baseline, or xs.sigma(5)", above=0.0)
    if isinstance(threshold, Sigma) and how.window is None:
        raise ParameterError(
            "a threshold in sigma needs the noise", found="no background", fix="background=(0, 100), without signal"
        )
    where = None if window is None else span_of(window, "window")
    part = real_number("fraction", fraction, "between 0 and 1", above=0.0, below=1.0)
    if delay is None and fraction != 0.5:
        raise ParameterError(
            "the fraction is that of a constant-fraction discriminator, which delays the waveform",
            found=f"fraction={fraction:g} without delay",
            fix=f"delay=6, fraction={fraction:g}",
        )
    late = 0 if delay is None else whole_number("delay", delay)
    timing = (part, late, whole_number("separation", separation))
    return Hits(height, isinstance(threshold, Sigma), how, where, timing)


@dataclass(frozen=True)
class Hits(Record):
    """Threshold, baseline and timing; made by :func:`waveform_hits`."""

    name: ClassVar[str] = "waveform_hits"

    threshold: float
    in_sigma: bool
    baseline: Baseline
    window: SampleSpan | None
    timing: tuple[float, int, int]

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe counts and lists."""
        check_waves(frames, self.baseline.window, self.window)
        units = {} if frames.units is None else {UNITS: frames.units}
        none, double, whole = {UNITS: DIMENSIONLESS}, np.dtype(np.float64), np.dtype(np.int32)
        lists: dict[str, tuple[np.dtype[Any], dict[str, str]]]
        lists = {
            TIME: (double, none),
            AMPLITUDE: (double, units),
            WIDTH: (double, none),
            f"{HIT}_{CHANNEL}": (whole, none),
        }
        out = {N_HITS: Output((), (), whole, {**none, SAMPLE_DIMENSION: HIT})}
        out[_OF_CHANNEL] = Output((CHANNEL,), (frames.shape[0],), whole, none)
        return out | {name: Output((HIT,), (None,), dtype, attrs) for name, (dtype, attrs) in lists.items()}

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Channels."""
        return per_channel(frames)

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return HitsReducer(self, frames)


class HitsReducer(WaveReducer):
    """Finds the hits of the waveforms of a group."""

    def __init__(self, record: Hits, frames: Frames) -> None:
        super().__init__(frames)
        self._record, self._numbers = record, frames.segment
        self._background = at(record.baseline.window, frames)
        self._window = (0, frames.shape[2]) if record.window is None else at(record.window, frames)
        self._room = np.empty((64, 4))

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._found: list[list[npt.NDArray[np.float64]]] = [[] for _ in range(k)]

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Find the hits of channel ``s``."""
        from xsmall.kernels.waveform import baseline, hits

        del variance, s
        record, how = self._record, self._record.baseline
        for j, wave in enumerate(self.rows(frames)):
            baseline(wave, *self._background, how.median, self._level)
            threshold = record.threshold * (self._level[1] if record.in_sigma else 1.0)
            n = 0
            for _ in range(2 if threshold > 0 else 0):  # again where there was no room for all
                n = hits(wave, self._window, (self._level[0], how.sign, threshold), record.timing, self._room)
                if n <= len(self._room):
                    break
                self._room = np.empty((2 * n, 4))
            self._found[j].append(self._room[:n].copy())

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand out the lists of each event."""
        count = np.array([[len(part) for part in event] for event in self._found], np.int32).reshape(-1, self._channels)
        flat = np.concatenate([np.empty((0, 4)), *(part for event in self._found for part in event)])
        channel = np.repeat(np.tile(np.array(self._numbers, np.int32), len(self._found)), count.ravel())
        values = {TIME: flat[:, 0] + self._first, AMPLITUDE: flat[:, 1], WIDTH: flat[:, 2], f"{HIT}_{CHANNEL}": channel}
        counts = {N_HITS: count.sum(axis=1, dtype=np.int32), _OF_CHANNEL: count}
        return counts | {name: lists_of_counts(v, counts[N_HITS]) for name, v in values.items()}
