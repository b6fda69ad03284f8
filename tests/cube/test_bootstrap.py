"""Replicas of a cube: the spread between them is the error of whatever is made of each."""

from collections.abc import Callable
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.cube.bootstrap import _block
from xsmall.errors import ParameterError

BINS = {"on": xs.categories(), "scan": xs.bins(0, 4, n=4)}


def small(n: int = 6000, seed: int = 1, *, drift: float = 0.0, order: str = "fly") -> xr.Dataset:
    """Signal of 5 per I0, 6 with laser; what drifts is the same for all shots of a while."""
    rng = np.random.default_rng(seed)
    i0 = rng.normal(1, 0.2, n).clip(0.2)
    on = rng.random(n) < 0.6
    scan = rng.random(n) * 4
    slow = drift * np.repeat(rng.normal(0, 1, n // 50 + 1), 50)[:n]
    signal = np.where(on, 6.0, 5.0) * i0 + 0.3 * rng.normal(size=n) + slow
    two = np.stack([signal, 2 * signal], axis=1)
    two[rng.random((n, 2)) < 0.05] = np.nan
    return xr.Dataset(
        {
            "on": ("event", on),
            "scan": ("event", np.sort(scan) if order == "step" else scan),
            "i0": ("event", i0),
            "signal": ("event", signal, {"units": "keV"}),
            "two": (("event", "q"), two),
            "hit": ("event", on & (i0 > 1)),
        },
        coords={"event": np.datetime64("2026-01-01", "ns") + np.arange(n)},
    )


@pytest.mark.parametrize("order", ["fly", "step"])
def test_replicas_are_those_of_events_taken_as_often_as_their_block_was_drawn(order: str) -> None:
    data = small(900, order=order)
    replicas = data.sd.bootstrap(BINS, n=7, block=50, seed=3, weights="i0")
    drawn = np.random.default_rng(3).poisson(1.0, (7, 18))
    for r in range(7):
        taken = data.isel(event=np.repeat(np.arange(900), drawn[r][np.arange(900) // 50]))
        truth = taken.drop_vars("event").sd.cube(BINS, weights="i0")
        for name in ("signal", "signal_std", "two", "two_count", "two_covariance", "i0_stderr", "count", "hit"):
            np.testing.assert_allclose(replicas[name].isel(replica=r), truth[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("estimator", ["sums", "regression"])
@pytest.mark.parametrize("order", ["fly", "step"])
def test_pulls_of_ratios_and_differences_have_unit_width(estimator: str, order: str) -> None:
    pulls = []
    for seed in range(13):
        data = small(3000, seed=seed, order=order)
        asked = {"weights": "i0", "seed": seed}
        change = data.sd.bootstrap(BINS, **asked).sd.difference("on", normalize=estimator)["two"]
        middle = data.sd.cube(BINS, weights="i0").sd.difference("on", normalize=estimator)["two"]
        pulls.append(((middle - [1.0, 2.0]) / change.std("replica")).values)
    assert abs(np.std(pulls) - 1) < 0.2  # 104 pulls, whose width is known to 0.07: an error wrong by 1.3 is seen
    assert abs(np.mean(pulls)) < 0.25


def test_what_the_events_of_a_block_have_in_common_is_in_the_error() -> None:
    means, drawn, stderr = [], [], []
    for seed in range(60):
        data = small(2000, seed=seed, drift=0.5)
        bins = {"on": xs.categories()}
        replicas = data.sd.bootstrap(bins, block=50, seed=seed)
        cube = data.sd.cube(bins)
        means.append((cube["signal"] - [5.0, 6.0]).values)
        drawn.append(replicas["signal"].std("replica").values)
        stderr.append(cube["signal_stderr"].values)
    truth = np.std(means)
    assert np.mean(drawn) == pytest.approx(truth, rel=0.15)
    assert np.mean(stderr) < 0.75 * truth  # events taken as independent


def test_an_error_of_a_mean_of_independent_events_is_the_standard_error() -> None:
    data = small(20_000)
    replicas = data.sd.bootstrap(BINS, n=400)
    ratio = replicas["signal"].std("replica") / data.sd.cube(BINS)["signal_stderr"]
    assert float(ratio.mean()) == pytest.approx(1, rel=0.08)


@pytest.mark.parametrize("chunk", [128, 333, 900])
def test_the_bits_do_not_depend_on_chunks_or_scheduler(chunk: int, computing_is_forbidden: Callable[[], Any]) -> None:
    data = small(900)
    lazy = data.chunk(event=chunk).assign(on=data.on, scan=data.scan, i0=data.i0)
    with computing_is_forbidden():
        replicas = lazy.sd.bootstrap(BINS, n=20, block=512, weights="i0")  # a block longer than a lane
    whole = data.sd.bootstrap(BINS, n=20, block=512, weights="i0")
    for scheduler in ("threads", "synchronous"):
        with dask.config.set(scheduler=scheduler):
            xr.testing.assert_identical(replicas.compute(), whole)
    assert not data.sd.bootstrap(BINS, n=20, block=512, weights="i0", seed=1)["signal"].equals(whole["signal"])


def test_what_follows_each_other_in_time_is_drawn_together_wherever_it_stands() -> None:
    rng = np.random.default_rng(3)
    drift = np.repeat(rng.normal(size=40), 25)
    small = xr.Dataset(
        {"signal": ("event", drift + 0.1 * rng.normal(size=1000)), "on": ("event", rng.random(1000) > 0.5)},
        {"event": np.datetime64("2026-01-01", "ns") + np.arange(1000)},
    )
    bins = {"on": xs.categories()}
    plain, mixed = (small.isel(event=e).sd.bootstrap(bins, block=25) for e in (slice(None), rng.permutation(1000)))
    np.testing.assert_allclose(mixed["signal"], plain["signal"], rtol=1e-9)
    np.testing.assert_array_equal(mixed["count"], plain["count"])


def test_blocks_are_long_and_still_many_for_each_bin() -> None:
    rng = np.random.default_rng(2)
    fly = rng.integers(0, 50, 100_000)
    assert _block(fly) == 2048
    assert _block(np.sort(fly)) == 64
    assert _block(np.zeros(20, np.int64)) == 1
    assert _block(np.full(20, -1)) == 1


def test_what_has_no_replicas_is_named() -> None:
    data = small(200)
    frames = xr.DataArray(np.ones((200, 1, 4, 4), np.float32), dims=("event", "segment", "row", "column"))
    replicas = data.assign(camera=frames, signal_variance=data.signal * 0 + 1).sd.bootstrap(BINS, n=5)
    assert set(replicas.attrs["left_out"].split(", ")) == {"camera", "signal_variance"}
    assert replicas.attrs["n_outside"] == 0
    assert replicas["signal"].attrs["units"] == "keV"


@pytest.mark.parametrize("said", [{"n": 1}, {"n": True}, {"block": 0}, {"block": 2.5}])
def test_numbers_that_cannot_be_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=r"invalid (number of replicas|length of blocks)"):
        small(100).sd.bootstrap(BINS, **said)
