"""The ghost of the previous frame: taken away where that frame is known, NaN where it is not."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xsmall as xs
from xsmall.calibration.ghost import subtract_ghost
from xsmall.errors import DataError, ParameterError

RNG = np.random.default_rng(5)
DIMS = ("event", "segment", "row", "column")


def frames(n: int = 6) -> xr.DataArray:
    time = np.datetime64("2026-01-01", "ns") + np.arange(n) * np.timedelta64(10, "ms")
    time[4:] += np.timedelta64(30, "ms")
    data = xr.DataArray(RNG.normal(0, 1, (n, 1, 3, 4)).astype("f4"), dims=DIMS, coords={"event": time})
    return data.assign_attrs(units="keV").rename("calibrated")


def test_a_known_ghost_is_taken_away() -> None:
    true = frames()
    fraction = xr.DataArray(RNG.uniform(0, 0.2, (1, 3, 4)), dims=DIMS[1:])
    seen = true.copy(data=true.values.copy())
    seen[1:] = true.values[1:] + fraction.values * seen.values[:-1] + 0.5
    for i in range(1, 6):  # each frame holds the ghost of the frame as it was recorded
        seen[i] = true.values[i] + fraction.values * seen.values[i - 1] + 0.5
    out = subtract_ghost(seen, fraction, offset=0.5)
    np.testing.assert_allclose(out.values[1:], true.values[1:], atol=1e-6)
    assert np.isnan(out.values[0]).all()
    assert out.attrs["units"] == "keV"
    assert out.dtype == np.float32
    np.testing.assert_array_equal(subtract_ghost(seen.chunk(event=2), fraction, offset=0.5).values, out.values)


def test_after_a_gap_the_ghost_is_not_known() -> None:
    out = subtract_ghost(frames(), 0.1, max_gap=np.timedelta64(15, "ms"))
    assert np.isnan(out.values).all(axis=(1, 2, 3)).tolist() == [True, False, False, False, True, False]


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ParameterError, match="fraction"):
        subtract_ghost(frames(), 10.0)
    with pytest.raises(DataError, match="time of each event"):
        subtract_ghost(frames().drop_vars("event"), 0.1, max_gap=np.timedelta64(15, "ms"))
    with pytest.raises(DataError, match="order"):
        subtract_ghost(frames().isel(event=slice(None, None, -1)), 0.1)
    with pytest.raises(DataError, match="not of raw words"):
        subtract_ghost(frames().astype("uint16"), 0.1)  # what is below 0 would come out as 65535
    few = xr.DataArray(np.zeros((1, 2, 4)), dims=DIMS[1:], coords={"row": [0, 1]})
    with pytest.raises(DataError, match="every row"):
        subtract_ghost(frames().assign_coords(row=[0, 1, 2]), few)  # a third of the pixels would be gone
    with pytest.raises(ParameterError, match="fraction"):
        subtract_ghost(frames(), few.isel(row=[0, 1, 1]).drop_vars("row") + 2)
    with pytest.raises(DataError, match="order"):
        subtract_ghost(frames().isel(event=slice(None, None, -1)), 0.1, max_gap=np.timedelta64(15, "ms"))


def test_the_variance_of_both_frames_counts() -> None:
    rng = np.random.default_rng(1)
    values = frames(2000).assign_coords(event=np.arange(2000).astype("M8[ms]"))
    sigma = rng.uniform(1, 3, values.shape[1:]).astype("f4")
    both = values.copy(data=rng.normal(0, sigma, values.shape).astype("f4")).to_dataset()
    both = xs.with_variance(both["calibrated"], both["calibrated"] * 0 + sigma**2)
    out = both.sd.subtract_ghost(0.5)
    pulls = (out["calibrated"] / np.sqrt(out["calibrated_variance"])).values[1:]
    np.testing.assert_allclose(out["calibrated_variance"].values[1:], 1.25 * both["calibrated_variance"][1:], rtol=1e-5)
    assert abs(pulls.std() - 1) < 0.02
    assert np.isnan(out["calibrated_variance"].values[0]).all()


@pytest.mark.parametrize("lazy", [False, True])
def test_the_ghost_of_a_frame_that_was_flagged_is_not_known(lazy: bool) -> None:
    whole = frames().assign_coords(unusable=(("event", "segment"), np.zeros((6, 1), np.uint32)))
    present = np.ones((6, 1), bool)
    present[2] = False
    flagged = whole.assign_coords(present=(("event", "segment"), present))
    flagged = flagged.chunk(event=2) if lazy else flagged
    out, plain = subtract_ghost(flagged, 0.1), subtract_ghost(whole, 0.1)
    assert np.isnan(out.values).all(axis=(1, 2, 3)).tolist() == [True, False, False, True, False, False]
    np.testing.assert_array_equal(out.values[[1, 2, 4, 5]], plain.values[[1, 2, 4, 5]])


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_gaps_are_told_whatever_the_resolution_and_zone_of_times(zone: str | None) -> None:
    times = pd.DatetimeIndex(frames()["event"].values).as_unit("us").tz_localize(zone)
    out = subtract_ghost(frames().assign_coords(event=times), 0.1, max_gap="15ms")
    assert np.isnan(out.values).all(axis=(1, 2, 3)).tolist() == [True, False, False, False, True, False]
