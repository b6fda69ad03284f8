"""Spatial autocorrelation of a masked frame by Fourier transforms, which release the GIL.

With I the frame where it is valid and 0 elsewhere, M = 1 where it is valid, and sums over all pixels p,

    C(l) = [sum I(p) I(p+l)] [sum M(p) M(p+l)] / ([sum I(p) M(p+l)] [sum M(p) I(p+l)])

is the mean product of the pairs of valid pixels that lie l apart, divided by the means of either side of those same
pairs: 1 without correlation, and not biased by masks or borders. Frames are padded with zeros, so that nothing wraps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import fft

from xsmall.kernels.jit import njit

__all__ = ["AutocorrelationSums", "Correlator", "fast_length", "variance_of_lag"]

_NOISE = 64 * np.finfo(np.float64).eps
"""Sums below this part of the largest possible are rounding of the transforms: no signal, no correlation."""


def fast_length(n: int) -> int:
    """Smallest length from ``n`` on with no prime factor above 7, for which transforms are fast.

    Examples
    --------
    >>> fast_length(1021), fast_length(64)
    (1024, 64)
    """
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


class AutocorrelationSums(NamedTuple):
    """Sums over pairs of pixels, lag by lag: what can be added up over several pieces before it is normalised."""

    product: npt.NDArray[np.float64]
    """I(p) I(p + l)."""
    one_side: npt.NDArray[np.float64]
    """I(p) M(p + l); the other side is that of the opposite lag."""
    pairs: npt.NDArray[np.float64]
    """M(p) M(p + l)."""
    most: float
    """Sum of all absolute values."""

    def plus(self, other: AutocorrelationSums) -> AutocorrelationSums:
        """The sums over the pairs of both."""
        product, one_side = self.product + other.product, self.one_side + other.one_side
        return AutocorrelationSums(product, one_side, self.pairs + other.pairs, self.most + other.most)

    def normalised(self) -> npt.NDArray[np.float64]:
        """The correlation; NaN where no pair of valid pixels, or no signal, lies that far apart."""
        other_side = self.one_side[::-1, ::-1]
        floor = _NOISE * self.most
        signal = (np.abs(self.one_side) > floor) & (np.abs(other_side) > floor) & (self.pairs > 0)
        out = np.full(self.product.shape, np.nan)
        np.divide(self.product * self.pairs, self.one_side * other_side, out=out, where=signal)
        return out


class Correlator:
    """Autocorrelation of frames of one shape up to some lag; keeps the transform of the last mask.

    Parameters
    ----------
    shape
        Rows and columns of the frames.
    max_lag
        Largest lag along row and column; lags from the shape on have no pair.
    """

    def __init__(self, shape: tuple[int, int], max_lag: tuple[int, int]) -> None:
        self.shape = shape
        self.max_lag = max_lag
        self._size = tuple(fast_length(n + lag) for n, lag in zip(shape, max_lag, strict=True))
        self._valid: npt.NDArray[np.bool_] | None = None
        self._mask_transform = np.empty(0, dtype=np.complex128)
        self._pairs = np.empty(0)

    def __call__(self, frame: npt.NDArray[Any], use: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Correlate one frame with itself: (2 * max_lag + 1) along row and column, lag 0 in the middle.

        NaN where no pair of valid pixels, or no signal, lies that far apart.
        """
        return self.sums(frame, use).normalised()

    def with_variance(
        self, frame: npt.NDArray[Any], use: npt.NDArray[np.bool_], variance: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Correlate as :meth:`__call__`, and propagate the variance of each pixel to first order."""
        sums = self.sums(frame, use)
        return sums.normalised(), self.variance_of(frame, use, variance, sums)

    def variance_of(
        self, frame: npt.NDArray[Any], use: npt.NDArray[np.bool_], variance: npt.NDArray[Any], sums: AutocorrelationSums
    ) -> npt.NDArray[np.float64]:
        """What the errors of the pixels of this piece add to the variance of the correlation that ``sums`` make.

        With A, P, B and D for the four sums of C = A P / (B D), in the order above, the derivative of C(l) by the pixel
        at p is P / (B D) (I(p+l) + I(p-l)) - C (M(p+l) / B + M(p-l) / D).
        """
        out, one_side = sums.normalised(), sums.one_side
        other_side = one_side[::-1, ::-1]
        valid = np.isfinite(frame) & use
        down, right = self.max_lag
        margin = ((down, down), (right, right))
        values = np.pad(np.where(valid, frame, 0).astype(np.float64), margin)
        variances = np.where(valid, variance, 0).astype(np.float64)
        mask = np.pad(valid.astype(np.float64), margin)
        of_each = np.full(out.shape, np.nan)
        for i in range(down + 1):  # opposite lags are the same
            for j in range(2 * right + 1):
                c, b, d = out[i, j], one_side[i, j], other_side[i, j]
                if c == c:
                    share = sums.pairs[i, j] / (b * d)
                    of_each[i, j] = variance_of_lag(values, mask, variances, i - down, j - right, share, c / b, c / d)
        of_each[down:] = of_each[down::-1, ::-1]
        return of_each

    def sums(self, frame: npt.NDArray[Any], use: npt.NDArray[np.bool_]) -> AutocorrelationSums:
        """Sums over the pairs of valid pixels of one frame."""
        valid = np.isfinite(frame) & use
        if self._valid is None or not np.array_equal(valid, self._valid):
            self._mask_transform = self._transform(valid.astype(np.float64))
            self._pairs = np.rint(self._even_lags(np.abs(self._mask_transform) ** 2))
            self._valid = valid
        values = np.where(valid, frame, 0).astype(np.float64)
        transform = self._transform(values)
        power = transform.real**2 + transform.imag**2
        one_side = self._lags(np.conj(transform) * self._mask_transform)
        return AutocorrelationSums(self._even_lags(power), one_side, self._pairs, float(np.abs(values).sum()))

    def _transform(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
        """Transform, padded with zeros; rows of zeros have no part in the first step."""
        along = fft.rfft(values, self._size[1], axis=1)
        whole: npt.NDArray[np.complex128] = fft.fft(along, self._size[0], axis=0, overwrite_x=True)
        return whole

    def _lags(self, product: npt.NDArray[Any], first: int | None = None) -> npt.NDArray[np.float64]:
        """Back to the lags asked for, rows from ``first`` on; only these take part in the last step."""
        down, right = self.max_lag
        rows = np.arange(-down if first is None else first, down + 1)
        across = fft.ifft(product, axis=0, overwrite_x=True)[rows]
        whole = fft.irfft(across, self._size[1], axis=1, overwrite_x=True)
        lags: npt.NDArray[np.float64] = np.concatenate([whole[:, whole.shape[1] - right :], whole[:, : right + 1]], 1)
        return lags

    def _even_lags(self, product: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The same of what is alike for opposite lags, of which half is enough."""
        half = self._lags(product.astype(np.complex128), first=0)
        return np.concatenate([half[:0:-1, ::-1], half])


@njit
def variance_of_lag(
    values: Any, mask: Any, variance: Any, down: Any, right: Any, share: Any, over_b: Any, over_d: Any
) -> Any:
    """Sum over all pixels of the variance times the squared derivative of the correlation at one lag.

    Parameters
    ----------
    values, mask
        float64 frame and its mask, 0 where not valid, with a margin of the largest lag on all sides.
    variance
        float64 (row, column) without margin, 0 where not valid.
    down, right
        The lag.
    share, over_b, over_d
        P / (B D), C / B and C / D.
    """
    rows, columns = variance.shape
    top, left = (values.shape[0] - rows) // 2, (values.shape[1] - columns) // 2
    total = 0.0
    for r in range(rows):
        on, back = r + top + down, r + top - down
        here, there = left + right, left - right
        line = 0.0
        for c in range(columns):
            slope = share * (values[on, c + here] + values[back, c + there])
            slope -= over_b * mask[on, c + here] + over_d * mask[back, c + there]
            line += variance[r, c] * slope * slope
        total += line
    return total
