"""Fits of templates to waveforms, and templates that are learned from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import dask.base
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import DataError, ParameterError
from xsmall.frames.waveforms import as_waves
from xsmall.reductions.arguments import whole_number
from xsmall.reductions.waveform import (
    Baseline,
    SampleSpan,
    WaveReducer,
    at,
    baseline_of,
    check_waves,
    per_channel,
    span_of,
)
from xsmall.vocabulary import (
    AMPLITUDE,
    CHANNEL,
    COEFFICIENT,
    COLUMN,
    DIMENSIONLESS,
    EVENT,
    EXPLAINED,
    NORM,
    PULSE,
    RESIDUAL,
    ROW,
    SAMPLE,
    SEGMENT,
    TEMPLATE,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["waveform_basis", "waveform_fit"]

_SINGULAR: Final = "singular_value"
_FIX: Final = "basis = xs.waveform_basis(waves, 3, (100, 260), background=(0, 90)); waves.sd.waveform_fit(basis, ...)"


def waveform_basis(
    waves: xr.DataArray,
    n_templates: int,
    window: tuple[int, int],
    background: tuple[int, int] | None = None,
    *,
    baseline: Literal["median", "mean"] = "median",
) -> xr.DataArray:
    """Learn templates of pulses from waveforms: the first singular vectors of what lies above the baseline.

    Parameters
    ----------
    waves
        Waveforms (event, sample) or (event, channel, sample) with one pulse each; some hundred are enough.
    n_templates
        How many.
    window
        Samples (first, last + 1) that hold the pulse, by the labels of ``sample``.
    background, baseline
        As in :func:`~xsmall.waveform_integral`; give the same to :func:`~xsmall.waveform_fit`.

    Returns
    -------
    DataArray (template, sample) or (channel, template, sample), float64, in memory: orthonormal templates by falling
    ``singular_value`` (template), a coordinate; the largest sample of each is positive.

    Raises
    ------
    DataError
        No waveforms, or fewer valid ones than templates.
    ParameterError
        A window that is none, or a number of templates below 1.

    Notes
    -----
    Waveforms with a sample in the window that is not valid are left out. The singular values tell how many templates
    stand above the noise. Cost: computes the waveforms; events times samples squared.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> shape = np.exp(-((np.arange(60.0) - 30) ** 2) / 20)
    >>> waves = xr.DataArray(np.outer(np.arange(1.0, 9.0), shape), dims=("event", "sample"))
    >>> basis = xs.waveform_basis(waves, 1, (15, 45))
    >>> basis.dims, bool(np.allclose(basis[0], shape[15:45] / np.linalg.norm(shape[15:45])))
    (('template', 'sample'), True)
    """
    made = as_waves(waves)
    if made is None:
        raise DataError("no waveforms", found=getattr(waves, "dims", type(waves).__name__), expected=(EVENT, SAMPLE))
    how, span = baseline_of(background, baseline, "positive"), span_of(window, "window")
    n = whole_number("n_templates", n_templates)
    values = made.frames.isel({ROW: 0}).sortby(COLUMN)
    labels = tuple(int(v) for v in values[COLUMN].values)
    for one in (span, how.window):
        if one is not None and not (labels[0] <= one[0] and one[1] <= labels[-1] + 1):
            raise ParameterError(
                "a window reaches beyond the waveform", found=f"samples {one[0]} to {one[1] - 1}",
                expected=f"samples {labels[0]} to {labels[-1]}",
            )  # fmt: skip
    stack = np.asarray(values.transpose(EVENT, SEGMENT, COLUMN).values, np.float64)
    start, stop = span[0] - labels[0], span[1] - labels[0]
    found, singular = [], []
    for c in range(stack.shape[1]):
        vectors, sizes = _learned(stack[:, c], (start, stop), how, labels[0], n)
        found.append(vectors)
        singular.append(sizes)
    basis = np.stack(found)
    coords: dict[str, Any] = {SAMPLE: np.arange(*span), CHANNEL: made.frames[SEGMENT].values}
    coords[_SINGULAR] = ((CHANNEL, TEMPLATE), np.stack(singular))
    out = xr.DataArray(basis, coords, (CHANNEL, TEMPLATE, SAMPLE), name="basis")
    return out.isel({CHANNEL: 0}, drop=True) if made.single else out


def _learned(
    waves: npt.NDArray[np.float64], window: SampleSpan, how: Baseline, first: int, n: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Templates (template, sample) of the waveforms of a channel, and their singular values."""
    level = np.zeros(len(waves))
    if how.window is not None:
        quiet = waves[:, how.window[0] - first : how.window[1] - first]
        known = np.isfinite(quiet).any(axis=1)
        level = np.full(len(waves), np.nan)
        level[known] = (np.nanmedian if how.median else np.nanmean)(quiet[known], axis=1)
    pulses = waves[:, slice(*window)] - level[:, None]
    pulses = pulses[np.isfinite(pulses).all(axis=1)]
    if len(pulses) < n or pulses.shape[1] < n:
        raise DataError(
            "too few waveforms for so many templates",
            found=f"{len(pulses)} valid ones of {pulses.shape[1]} samples",
            expected=f"{n} or more",
        )
    _, sizes, vectors = np.linalg.svd(pulses, full_matrices=False)
    signs = np.sign(vectors[np.arange(n), np.abs(vectors[:n]).argmax(axis=1)])
    return vectors[:n] * signs[:, None], sizes[:n]


def waveform_fit(
    templates: xr.DataArray,
    background: tuple[int, int] | None = None,
    *,
    delays: Sequence[int] = (0,),
    baseline: Literal["median", "mean"] = "median",
) -> Record:
    """Fit templates to waveforms: how much of each pulse is in them, also where pulses overlap.

    Parameters
    ----------
    templates
        (template, sample) or (channel, template, sample), such as :func:`waveform_basis` learns, or pulses that were
        measured; ``sample`` has the labels of the samples that they lie on.
    background, baseline
        As in :func:`~xsmall.waveform_integral`.
    delays
        Samples by which pulses come later than the templates: one pulse for each.

    Returns
    -------
    A record, for waveforms (event, sample) or (event, channel, sample). Its variables, float64: ``coefficient``
    (event, channel, pulse, template) in the unit of the data over that of the templates, with
    ``coefficient_variance``; of each pulse ``amplitude``, the value of its fit that is furthest from zero, and
    ``norm``, the root of the sum of its squares (event, channel, pulse), in the unit of the data; ``explained``, the
    share of the squares above the baseline that the fit explains, and ``residual``, the rms of what it leaves
    (event, channel). Without a second delay there is no dim ``pulse``.

    Raises
    ------
    ParameterError
        Templates that are none, depend on each other, or reach with their delays beyond the waveform.
    DataError
        No waveforms, or templates of other channels.

    Notes
    -----
    Linear least squares over the samples of all pulses. The variance is s^2 times the diagonal of the inverse of the
    normal matrix, where s is the noise of the background, or without one that of what the fit leaves, over the degrees
    of freedom; to it comes that of the baseline. A waveform with a sample that is not valid has NaN. Nothing is
    wrapped around. Cost: some 2 ns per sample, template and pulse.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> shape = xr.DataArray(np.exp(-((np.arange(60.0) - 30) ** 2) / 20), dims="sample")
    >>> waves = 3 * shape.expand_dims(event=4) + 5 * shape.shift(sample=9, fill_value=0.0)
    >>> part = shape.assign_coords(sample=np.arange(60)).isel(sample=slice(20, 41)).expand_dims("template")
    >>> found = waves.sd.waveform_fit(part, delays=(0, 9))
    >>> found["amplitude"].dims, found["amplitude"].values[0].round(2).tolist()
    (('event', 'pulse'), [3.0, 5.0])
    """
    given: object = templates
    dims = getattr(given, "dims", ())
    if not isinstance(given, xr.DataArray) or set(dims) not in ({TEMPLATE, SAMPLE}, {CHANNEL, TEMPLATE, SAMPLE}):
        raise ParameterError(
            "no templates", found=str(dims or type(templates).__name__), expected=(TEMPLATE, SAMPLE), fix=_FIX
        )
    per_one = templates if CHANNEL in dims else templates.expand_dims(CHANNEL)
    values = np.array(per_one.transpose(CHANNEL, TEMPLATE, SAMPLE).values, np.float64)
    labels = per_one[SAMPLE].values if SAMPLE in per_one.coords else np.arange(values.shape[2])
    if (
        not values.size
        or not np.isfinite(values).all()
        or labels.dtype.kind not in "iu"
        or (np.diff(labels) != 1).any()
    ):
        raise ParameterError(
            "no templates",
            found=f"{values.shape}, samples {labels[:3]} ...",
            expected="finite values on samples that follow each other",
            fix=_FIX,
        )
    shifts = tuple(whole_number("delays", d, "delays=(0, 120)", least=None) for d in delays)
    if not shifts or len(set(shifts)) < len(shifts):
        raise ParameterError("invalid delays", found=repr(delays), expected="samples, each once", fix="delays=(0, 120)")
    channels = None if CHANNEL not in dims else len(values)
    of = (int(labels[0]) + min(shifts), int(labels[-1]) + 1 + max(shifts))
    design = np.stack([_design(one, [d - min(shifts) for d in shifts], of[1] - of[0]) for one in values])
    if min(np.linalg.matrix_rank(one) for one in design) < design.shape[1]:
        raise ParameterError(
            "templates that depend on each other", found=f"{design.shape[1]} pulses times templates",
            expected="fewer of them, or delays that are further apart",
        )  # fmt: skip
    return Fit(_Design(design), channels, of, shifts, baseline_of(background, baseline, "positive"))


def _design(templates: npt.NDArray[np.float64], shifts: Sequence[int], n: int) -> npt.NDArray[np.float64]:
    """Templates of all pulses (pulse times template, sample)."""
    out = np.zeros((len(shifts), *templates.shape[:1], n))
    for pulse, shift in enumerate(shifts):
        out[pulse, :, shift : shift + templates.shape[1]] = templates
    return out.reshape(-1, n)


class _Design:
    """Templates of all pulses by channel, equal where their values are."""

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        self.values = values
        self._token = str(dask.base.tokenize(values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Design) and self._token == other._token

    def __hash__(self) -> int:
        return hash(self._token)

    def __repr__(self) -> str:
        return f"templates({self.values.shape[1:]}, {self._token[:8]})"

    def __dask_tokenize__(self) -> str:
        return self._token


@dataclass(frozen=True)
class Fit(Record):
    """Templates, where they lie, and a baseline; made by :func:`waveform_fit`."""

    name: ClassVar[str] = "waveform_fit"

    design: _Design
    channels: int | None
    window: SampleSpan
    delays: tuple[int, ...]
    baseline: Baseline = field(default_factory=lambda: Baseline(None, True, 1.0))

    @property
    def n_templates(self) -> int:
        """Templates of a pulse."""
        return int(self.design.values.shape[1]) // len(self.delays)

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe coefficients, pulses and what is left."""
        check_waves(frames, self.baseline.window, self.window)
        if self.channels not in (None, frames.shape[0]):
            raise DataError(
                "templates of other channels", found=f"{self.channels} channels",
                expected=f"{frames.shape[0]}, as the waveforms have, or templates without channels",
            )  # fmt: skip
        units = {} if frames.units is None else {UNITS: frames.units}
        double, none = np.dtype(np.float64), {UNITS: DIMENSIONLESS}
        several = len(self.delays) > 1
        dims = (CHANNEL, *([PULSE] if several else []))
        shape: tuple[int, ...] = (frames.shape[0], *([len(self.delays)] if several else []))
        full, size = (*dims, TEMPLATE), (*shape, self.n_templates)
        out = {
            COEFFICIENT: Output(full, size, double, {}),
            f"{COEFFICIENT}{VARIANCE_SUFFIX}": Output(full, size, double, {}),
        }
        out |= {name: Output(dims, shape, double, units) for name in (AMPLITUDE, NORM)}
        return out | {
            EXPLAINED: Output(dims[:1], shape[:1], double, none), RESIDUAL: Output(dims[:1], shape[:1], double, units)
        }  # fmt: skip

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Channels, and delays of pulses."""
        pulses = {PULSE: xr.Variable((PULSE,), np.array(self.delays), {UNITS: DIMENSIONLESS})}
        return per_channel(frames) | (pulses if len(self.delays) > 1 else {})

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return FitReducer(self, frames)


class FitReducer(WaveReducer):
    """Fits the waveforms of a group."""

    def __init__(self, record: Fit, frames: Frames) -> None:
        super().__init__(frames)
        self._record = record
        self._background = at(record.baseline.window, frames)
        self._start = at(record.window, frames)[0]
        self._design = record.design.values
        self._inverse = [np.ascontiguousarray(np.linalg.pinv(d).T) for d in self._design]
        self._shift = [inverse.sum(axis=1) ** 2 for inverse in self._inverse]  # by an error of the baseline
        self._variances = [np.diag(np.linalg.inv(d @ d.T)).copy() for d in self._design]

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        m = self._design.shape[1]
        self._found = np.empty((k, self._channels, m))
        self._variance = np.empty_like(self._found)
        self._quality = np.empty((k, self._channels, 2))

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Fit channel ``s``."""
        from xsmall.kernels.waveform import baseline, fit

        del variance
        c = 0 if self._record.channels is None else s
        m, n = self._design.shape[1:]
        for j, wave in enumerate(self.rows(frames)):
            baseline(wave, *self._background, self._record.baseline.median, self._level)
            rest, square = fit(wave, self._start, self._level[0], self._design[c], self._inverse[c], self._found[j, s])
            free = rest / (n - m) if n > m else np.nan
            noise = free if self._record.baseline.window is None else self._level[1] ** 2
            level = self._record.baseline.error(self._level[1], self._level[2])
            self._variance[j, s] = noise * self._variances[c] + level * self._shift[c] if np.isfinite(rest) else np.nan
            self._quality[j, s] = (1 - rest / square if square > 0 else np.nan), np.sqrt(rest / n)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group: what each pulse is like."""
        several, record = len(self._record.delays) > 1, self._record
        k, pulses = len(self._found), len(record.delays)
        shape = (k, self._channels, pulses, record.n_templates)
        found, variances = self._found.reshape(shape), self._variance.reshape(shape)
        highest, norm = np.empty(shape[:3]), np.empty(shape[:3])
        for s in range(self._channels):
            own = self._design[0 if record.channels is None else s].reshape(pulses, record.n_templates, -1)
            for j in range(k):
                for p in range(pulses):
                    made = (found[j, s, p, :, None] * own[p]).sum(axis=0)
                    highest[j, s, p] = made[np.abs(made).argmax()]
                    norm[j, s, p] = np.sqrt((made**2).sum())
        pick: Any = slice(None) if several else 0
        out = {COEFFICIENT: found[:, :, pick], f"{COEFFICIENT}{VARIANCE_SUFFIX}": variances[:, :, pick]}
        out |= {AMPLITUDE: highest[:, :, pick], NORM: norm[:, :, pick]}
        return {n: v.copy() for n, v in out.items()} | {
            EXPLAINED: self._quality[..., 0].copy(), RESIDUAL: self._quality[..., 1].copy()
        }  # fmt: skip
