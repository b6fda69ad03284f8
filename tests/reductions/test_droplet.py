"""``droplet``: the list of an event over all segments, its labels, its end."""

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError
from xsmall.kernels.reference.droplet import droplet as twin


def test_lists_are_those_of_the_twin_segment_after_segment(placed: xr.DataArray) -> None:
    cut = placed.isel(row=slice(5, 35))
    out = cut.sd.droplet(4.0, 0.6, max_droplets=300)
    use = np.ones(cut.shape[2:], bool)
    for event in range(cut.sizes["event"]):
        expected = [(s, d) for s in range(2) for d in twin(cut.values[event, s], use, 4.0, 0.6)]
        got = out.isel(event=event)
        n = int(got["n_droplets"])
        assert n == len(expected)
        np.testing.assert_array_equal(got["segment"][:n], [s for s, _ in expected])
        np.testing.assert_array_equal(got["n_pixels"][:n], [d.size for _, d in expected])
        np.testing.assert_allclose(got["sum"][:n], [d.total for _, d in expected], rtol=1e-6)
        np.testing.assert_allclose(got["row"][:n], [d.row + 5 for _, d in expected], rtol=1e-9)
        np.testing.assert_allclose(got["column"][:n], [d.column for _, d in expected], rtol=1e-9, atol=1e-9)
        assert np.isnan(got["sum"][n:]).all()
        assert np.isnan(got["row"][n:]).all()
        assert (got["segment"][n:] == -1).all()
        assert (got["n_pixels"][n:] == -1).all()
    assert (out["n_droplets"] > 20).all()


def test_the_count_goes_on_where_the_list_ends(frames: xr.DataArray) -> None:
    all_of_them, few = frames.sd.droplet(4.0, max_droplets=300), frames.sd.droplet(4.0, max_droplets=5)
    xr.testing.assert_equal(few["n_droplets"], all_of_them["n_droplets"])
    xr.testing.assert_equal(few["sum"], all_of_them["sum"][:, :5])


def test_masked_pixels_are_neither_seeds_nor_members(placed: xr.DataArray) -> None:
    mask = np.random.default_rng(0).random(placed.shape[1:]) > 0.2
    xr.testing.assert_equal(
        placed.sd.droplet(4.0, 0.5, mask=mask),
        placed.where(xr.DataArray(mask, dims=placed.dims[1:])).sd.droplet(4.0, 0.5),
    )
    assert not placed.sd.droplet(4.0, mask=np.zeros_like(mask))["n_droplets"].any()


def test_variances_are_propagated(frames: xr.DataArray) -> None:
    both = xr.Dataset({"cal": frames, "cal_variance": xr.full_like(frames, 0.25)})
    out = both.sd.droplet(4.0, 0.6)
    np.testing.assert_allclose(out["sum_variance"], 0.25 * out["n_pixels"].where(out["n_pixels"] > 0))


def test_results_do_not_depend_on_chunks(frames: xr.DataArray, computing_is_forbidden) -> None:  # type: ignore[no-untyped-def]
    whole = frames.sd.droplet(4.0, 0.6, max_droplets=50)
    for chunks in (1, 2, 5):
        with computing_is_forbidden():
            lazy = frames.chunk(event=chunks).sd.droplet(4.0, 0.6, max_droplets=50)
        xr.testing.assert_identical(lazy.compute(), whole)
    assert frames[:0].sd.droplet(4.0)["sum"].shape == (0, 1000)


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": 1.0, "threshold_low": 2.0},
        {"threshold": 0.0},
        {"threshold": -1.0},
        {"threshold": np.nan},
        {"threshold": "5 sigma"},
        {"threshold": 1.0, "max_droplets": 0},
        {"threshold": 1.0, "max_droplets": 2.5},
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(arguments: dict) -> None:
    with pytest.raises(ParameterError):
        xs.droplet(**arguments)


def test_frames_with_pixels_left_out_are_refused(placed: xr.DataArray) -> None:
    with pytest.raises(DataError, match="neighbours"):
        placed.isel(row=slice(None, None, 2)).sd.droplet(4.0)
