"""The picture of the detector: what is drawn where, and that little is read."""

import dask.array as da
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError
from xsmall.frames.beam import assign_beam
from xsmall.frames.image import image
from xsmall.frames.pixels import assign_geometry
from xsmall.plot.detector import plot
from xsmall.vocabulary import FRAME_DIMS

mpl.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def frames() -> xr.DataArray:
    panels = [xs.Panel((1e-3, 4e-3 * i, 0.1), (0, -1e-4, 0), (-1e-4, 0, 0), (20, 30)) for i in range(2)]
    geometry = xs.Geometry.from_panels(panels)
    values = np.random.default_rng(0).normal(100, 10, (6, *geometry.shape)).astype(np.float32)
    data = assign_geometry(xr.DataArray(values, dims=FRAME_DIMS, name="cal", attrs={"units": "keV"}), geometry)
    return assign_beam(data, center=(1e-3, -2e-3))


def drawn(ax) -> np.ndarray:
    return np.asarray(ax.images[-1].get_array().filled(np.nan))


def test_the_picture_is_the_mean_image_with_x_growing_to_the_left(frames: xr.DataArray) -> None:
    ax = plot(frames)
    assert ax.xaxis_inverted()
    assert not ax.yaxis_inverted()
    np.testing.assert_allclose(drawn(ax), image(frames.mean("event")).values, rtol=1e-5)
    left, right, bottom, top = ax.images[-1].get_extent()
    assert (left, right) == pytest.approx((1.05, -1.95))
    assert (bottom, top) == pytest.approx((-1.95, 4.05))
    assert ax.get_title() == "cal: mean of 6 of 6 events"


def test_the_beam_centre_and_the_outlines_are_where_they_are(frames: xr.DataArray) -> None:
    ax = plot(frames)
    assert ax.lines[0].get_xydata().tolist() == [[1.0, -2.0]]
    assert len(ax.collections[0].get_paths()) == 2
    assert not plot(frames, beam=False, outlines=False).lines
    assert len(plot(frames.isel(segment=[1])).collections[0].get_paths()) == 1


def test_masked_pixels_are_grey_and_gaps_are_not(frames: xr.DataArray) -> None:
    mask = xr.ones_like(frames.isel(event=0), dtype=bool)
    mask[0, :5] = False
    ax = plot(frames, mask=mask)
    grey = np.asarray(ax.images[0].get_array().filled(np.nan)) == 1
    assert grey.sum() == 5 * 30
    assert np.isnan(drawn(ax)[grey]).all()
    assert np.isnan(drawn(ax)).sum() > grey.sum()


def test_colours_range_over_percentiles_unless_told_otherwise(frames: xr.DataArray) -> None:
    one = frames.isel(event=0)
    assert plot(one).images[-1].get_clim() == pytest.approx(tuple(np.percentile(one, (1, 99))), rel=1e-5)
    assert plot(one, vmin=3, vmax=7).images[-1].get_clim() == (3, 7)
    assert plot(one, log=True).images[-1].norm.__class__.__name__ == "LogNorm"
    assert plot(xr.ones_like(one)).images[-1].get_clim() == (1, 2)


def test_few_frames_of_a_run_are_read(frames: xr.DataArray) -> None:
    read = []

    def block(block_info=None) -> np.ndarray:
        read.append(block_info[None]["chunk-location"][0])
        return np.full((1, 2, 20, 30), read[-1], dtype=np.float32)

    values = da.map_blocks(block, chunks=((1,) * 1000, (2,), (20,), (30,)), dtype=np.float32)
    read.clear()
    run = assign_geometry(xr.DataArray(values, dims=FRAME_DIMS), xs.Geometry.from_json(frames.geometry.attrs["rule"]))
    ax = plot(run, frames=3)
    assert sorted(read) == [0, 500, 999]
    assert np.nanmax(drawn(ax)) == pytest.approx(1499 / 3, rel=1e-3)


def test_segments_that_are_missing_do_not_pull_the_mean_down(frames: xr.DataArray) -> None:
    raw = frames.astype(np.uint16)
    present = np.ones((6, 2), dtype=bool)
    present[2:, 0] = False
    raw = (
        raw.where(present[:, :, None, None], 0).astype(np.uint16).assign_coords(present=(("event", "segment"), present))
    )
    ax = plot(raw)
    assert np.nanmin(drawn(ax)) > 50
    none = raw.assign_coords(present=(("event", "segment"), np.array([[False, False]] * 5 + [[True, True]])))
    assert plot(none).get_title() == "cal: 1 of 6 events"


def test_masks_and_reasons_are_drawn_in_two_colours(frames: xr.DataArray) -> None:
    flags = xs.mask(frames, edges=2)
    assert plot(flags).images[-1].cmap.N == 2
    assert plot(xs.usable(flags)).images[-1].cmap.N == 2
    assert np.nansum(drawn(plot(flags))) == int((flags != 0).sum())
    assert np.nansum(drawn(plot(xs.usable(flags)))) == int((flags == 0).sum())


def test_a_large_detector_is_drawn_coarser() -> None:
    panel = xs.Panel((0.2, 0.2, 0.1), (0, -1e-4, 0), (-1e-4, 0, 0), (5, 6000))
    data = xr.DataArray(np.ones((1, 5, 6000), np.float32), dims=FRAME_DIMS[1:])
    ax = plot(assign_geometry(data, xs.Geometry.from_panels([panel])))
    assert drawn(ax).shape == (2, 2001)


def test_what_cannot_be_drawn_is_refused(frames: xr.DataArray) -> None:
    with pytest.raises(DataError, match="one picture"):
        plot(frames.rename(event="delay"))
    with pytest.raises(DataError, match="no valid pixel"):
        plot(frames.isel(event=0) * np.nan)
    with pytest.raises(ParameterError, match="percentiles"):
        plot(frames, percentile=(99, 1))
    with pytest.raises(ParameterError, match="no frames"):
        plot(frames, frames=0)
    with pytest.raises(DataError, match="boolean"):
        plot(frames, mask=xr.ones_like(frames.isel(event=0)))
    with pytest.raises(DataError, match="boolean"):
        plot(frames, mask=np.ones(frames.shape[1:], bool))
    with pytest.raises(ParameterError, match="above 0"):
        plot(frames, log=True, vmin=0)
    with pytest.raises(ParameterError, match="takes no mask"):
        plot(image(frames.isel(event=0)), mask=frames.isel(event=0) > 0)
    with pytest.raises(DataError, match="above 0"):
        plot(frames.isel(event=0) * -1, log=True)
