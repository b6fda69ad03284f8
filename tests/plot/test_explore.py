"""The explorer without a browser: the mouse on an ordinary figure, and what was drawn as values and as code."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

pytest.importorskip("matplotlib")
from matplotlib.backend_bases import KeyEvent, MouseEvent

SHAPE = (2, 96, 128)


@pytest.fixture(scope="module")
def sim() -> Any:
    return xs.simulate(40, shape=SHAPE, seed=5)


@pytest.fixture(scope="module")
def raw(sim: Any) -> xr.DataArray:
    return sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)


@pytest.fixture(scope="module")
def cal(sim: Any, raw: xr.DataArray) -> xr.DataArray:
    return raw.sd.calibrate(sim.constants)


@pytest.fixture
def view(cal: xr.DataArray) -> xs.Explorer:
    view = cal.sd.explore(frames=4)
    view.figure.draw_without_rendering()  # now the axes know where they are
    return view


def mouse(view: xs.Explorer, *points: tuple[float, float], drag: bool = True, double: bool = False) -> None:
    """Press, move and release, or click, at points in m."""
    canvas = view.figure.canvas
    places = view.mouse.axes.transData.transform(1e3 * np.array(points))
    names = ["press", *["motion_notify"] * (len(points) - 2), "release"] if drag else ["press"] * len(points)
    for name, (x, y) in zip(names, places, strict=True):
        kind = f"button_{name}_event" if name != "motion_notify" else "motion_notify_event"
        MouseEvent(kind, canvas, x, y, 1)._process()
    if double:
        MouseEvent("button_press_event", canvas, *places[-1], 1, dblclick=True)._process()


def made_again(view: xs.Explorer, cal: xr.DataArray, raw: xr.DataArray | None = None) -> dict[str, Any]:
    """Type what the explorer says."""
    names: dict[str, Any] = {"xs": xs, "xr": xr, "cal": cal, "raw": raw}
    exec(view.code(), names)
    return names


def test_only_what_is_shown_is_read(cal: xr.DataArray, computing_is_forbidden: Callable[[], Any]) -> None:
    read = []
    lazy = cal.copy(data=cal.data.map_blocks(lambda block: read.append(len(block)) or block, dtype=cal.dtype))
    view = lazy.chunk(event=1).sd.explore(frames=3)
    read.clear()
    view.show(event=7)
    first = len(read)
    view.show(event=7).add(xs.Circle((0.002, 0.002), 1e-3))
    assert first > 0
    assert len(read) == first
    with computing_is_forbidden():
        view.numbers()
        view.code()
        view.readout(0.002, 0.002)


def test_a_drag_is_a_circle_whose_numbers_are_those_of_the_frame(view: xs.Explorer, cal: xr.DataArray) -> None:
    view.show(event=3).tool("circle")
    mouse(view, (0.002, 0.002), (0.002, 0.0025), (0.002, 0.003))
    (region,) = view.regions.values()
    assert isinstance(region, xs.Circle)
    assert np.allclose([*region.center, region.radius], [0.002, 0.002, 0.001], atol=2e-5)
    values = cal[3].where(xs.inside(cal, region)).values
    told = view.numbers().isel(roi=0)
    assert float(told["sum"]) == pytest.approx(np.nansum(values, dtype=np.float64), rel=1e-6)
    assert int(told["n_valid"]) == np.isfinite(values).sum()
    assert int(told["n_pixels"]) == int(xs.inside(cal, region).sum())
    assert view.figure.axes[2].get_legend() is not None  # they stand beside the picture


@pytest.mark.parametrize(
    ("tool", "points", "kind"),
    [
        ("box", [(0.002, 0.002), (0.001, 0.003)], xs.Box),
        ("box", [(0.002, 0.002), (0.001, -0.003)], "Rectangle"),  # over two segments
        ("rectangle", [(0.002, 0.002), (0.001, 0.003)], xs.Rectangle),
        ("circle", [(0.002, 0.002), (0.002, 0.003)], xs.Circle),
        ("ring", [(0.002, 0.002), (0.003, 0.003)], xs.Ring),
        ("band", [(0.002, 0.002), (0.003, 0.003)], xs.Band),
    ],
)
def test_the_code_makes_the_same_region_again(
    tool: str, points: list[tuple[float, float]], kind: Any, view: xs.Explorer, cal: xr.DataArray
) -> None:
    view.tool(tool)
    mouse(view, *points)
    (region,) = view.regions.values()
    assert type(region).__name__ == (kind if isinstance(kind, str) else kind.__name__)
    again = made_again(view, cal)
    assert again["regions"] == view.regions
    inside = view.numbers()
    small = again["small"].isel(event=[0, 1]).compute()
    assert small["roi_n_valid"].values.max() <= int(inside["n_pixels"][0])
    assert small["roi_n_valid"].values.min() > 0


def test_a_box_holds_the_pixels_under_its_corners(view: xs.Explorer, cal: xr.DataArray) -> None:
    a, b = (0.002, 0.002), (0.001, 0.003)
    view.tool("box")
    mouse(view, a, b)
    (box,) = view.regions.values()
    found = cal.sd.locate([a[0], b[0]], [a[1], b[1]])
    assert box.segment == int(found.segment[0])
    assert abs(box.row[0] - int(found.row.min())) <= 1
    assert abs(box.column[1] - 1 - int(found.column.max())) <= 1


def test_a_polygon_ends_with_a_double_click_its_first_corner_or_enter(view: xs.Explorer) -> None:
    corners = [(0.001, 0.001), (0.003, 0.001), (0.002, 0.003)]
    view.tool("polygon")
    mouse(view, *corners, drag=False, double=True)
    mouse(view, *corners, corners[0], drag=False)
    mouse(view, *corners, drag=False)
    KeyEvent("key_press_event", view.figure.canvas, "enter")._process()
    first, second, third = view.regions.values()
    assert isinstance(first, xs.Polygon)
    assert len(first.points) == 4
    assert first == second == third
    mouse(view, *corners[:2], drag=False)
    KeyEvent("key_press_event", view.figure.canvas, "escape")._process()
    assert len(view.regions) == 3
    view.undo()
    assert len(view.regions) == 2


def test_masks_have_reasons_and_hide_pixels(view: xs.Explorer, cal: xr.DataArray) -> None:
    view.add(xs.Circle((0.002, 0.002), 0.001), "spot")
    before = int(view.numbers()["n_valid"][0])
    view.tool("circle", "shadow")
    mouse(view, (0.002, 0.002), (0.002, 0.0025))
    view.tool("box", "user")
    mouse(view, (-0.002, 0.002), (-0.003, 0.003))
    assert [reason for _, reason in view.hidden] == ["shadow", "user"]
    assert int(view.numbers()["n_valid"][0]) < before
    assert "shadow" in view.readout(0.002, 0.002)
    again = made_again(view, cal)
    assert np.array_equal(again["mask"].values, xs.usable(view.mask).values)
    assert sorted(set(np.unique(view.mask.values))) == [0, int(xs.Reason.USER), int(xs.Reason.SHADOW)]
    small = again["small"].isel(event=slice(0, 2)).compute()
    without = cal[:2].sd.roi(xs.Circle((0.002, 0.002), 0.001)).compute()
    assert (small["roi_n_valid"].values < without["n_valid"].values).all()


def test_the_read_out_tells_what_is_under_the_cursor(raw: xr.DataArray, cal: xr.DataArray, sim: Any) -> None:
    flags = raw.sd.trust(sim.constants)
    view = cal.sd.explore(reasons=flags, frames=2).show(event=2)
    frame = flags[2].compute()
    where = np.argwhere((frame.values & int(xs.Reason.DEAD)) != 0)[0]
    pixel = cal.isel(dict(zip(("segment", "row", "column"), where, strict=True)))
    text = view.readout(float(pixel.x), float(pixel.y))
    assert f"segment {where[0]} row {where[1]} column {where[2]}" in text
    assert "nan keV" in text
    assert "dead" in text
    q = cal.sd.pixel("q").values[tuple(where)]
    assert f"q {q:.4f}" in text
    assert f"azimuth {cal.sd.pixel('azimuth').values[tuple(where)]:.1f}" in text
    assert view.readout(1.0, 1.0).endswith("no pixel")
    assert view.mouse.axes.format_coord(1e3, 1e3).endswith("no pixel")  # what a canvas shows


def test_clicks_on_rings_find_centre_and_distance(raw: xr.DataArray, sim: Any) -> None:
    moved = raw.sd.assign_beam(sim.beam.replace(center=(2e-4, -3e-4), distance=1.05 * sim.beam.distance))
    cal = moved.sd.calibrate(sim.constants)
    view = cal.sd.explore(rings=sim.truth["ring_q"].values, frames=2)
    view.figure.draw_without_rendering()
    radii = sim.beam.distance * np.tan(2 * np.arcsin(sim.truth["ring_q"].values * sim.beam.wavelength / (4 * np.pi)))
    view.tool("rings")
    for ring in (0, 1):
        view.ring = ring
        for azimuth in np.radians([20, 60, 120, 160, 200, 250, 290, 340]):
            mouse(view, (radii[ring] * np.cos(azimuth), radii[ring] * np.sin(azimuth)), drag=False)
    assert view.fit is not None
    assert np.allclose(view.fit.beam.center, (0, 0), atol=2e-5)
    assert view.fit.beam.distance == pytest.approx(sim.beam.distance, rel=3e-3)
    assert np.abs(view.fit.residuals).max() < 4e-5
    assert "rms" in view.figure.axes[3].get_title()
    fit = view.fit
    view.use_fit()
    assert view.beam == fit.beam
    assert xs.Beam(**_beam_values(made_again(view, cal)["cal"])) == fit.beam


def _beam_values(cal: xr.DataArray) -> dict[str, Any]:
    x, y = float(cal.center_x), float(cal.center_y)
    return {"photon_energy": float(cal.photon_energy), "distance": float(cal.distance), "center": (x, y)}


def test_clicks_on_a_ring_that_is_not_known_find_the_centre_alone(cal: xr.DataArray, sim: Any) -> None:
    view = cal.sd.explore(frames=2)
    for azimuth in np.radians([30, 100, 150, 210, 300]):
        fit = view.click_ring(1e-4 + 2e-3 * np.cos(azimuth), 2e-3 * np.sin(azimuth))
    assert fit is not None
    assert np.allclose(fit.beam.center, (1e-4, 0), atol=1e-9)
    assert fit.radii[0] == pytest.approx(2e-3)
    assert fit.beam.distance == sim.beam.distance
    view.tool("rings").undo().undo().undo()
    assert view.fit is None


def test_a_threshold_shows_the_spectrum_of_its_droplets(view: xs.Explorer, cal: xr.DataArray) -> None:
    sums = view.droplets(5.0, 2.0)
    drops = made_again(view, cal)["drops"]
    few = np.unique(np.linspace(0, cal.sizes["event"] - 1, 20).round().astype(int))
    expected = np.concatenate(list(drops.isel(event=few).compute()["sum"].values))
    assert np.array_equal(np.sort(sums.values), np.sort(expected))
    assert len(view.droplets(50.0)) < len(sums)
    assert view.threshold_low == 25.0


def test_a_scan_compares_on_and_off_by_region(view: xs.Explorer, cal: xr.DataArray) -> None:
    view.add(xs.Band("radius", 1e-3, 2e-3), "inner")
    view.add(xs.Circle((0.002, 0.002), 0.001), "spot")
    out = view.scan("delay", xs.bins(-2, 5, n=4), per="i0")
    assert out["roi_mean"].dims == ("delay", "roi")
    assert out["roi"].values.tolist() == ["inner", "spot"]
    names: dict[str, Any] = {"xs": xs, "cal": cal}
    *lines, last = view.code().splitlines()
    exec("\n".join(lines), names)
    again = eval(last, names)
    xr.testing.assert_equal(again["roi_mean"].compute(), out["roi_mean"])
    xr.testing.assert_equal(again["roi_mean_stderr"].compute(), out["roi_mean_stderr"])


def test_a_scan_takes_variables_that_lie_beside(cal: xr.DataArray) -> None:
    events = cal.coords.to_dataset()[["delay", "laser_on"]]
    bare = cal.drop_vars(["delay", "laser_on"])
    regions = {"spot": xs.Circle((0.002, 0.002), 0.001)}
    out = []
    for view in (cal.sd.explore(frames=2), bare.sd.explore(frames=2, events=events.isel(event=slice(None, None, -1)))):
        view.add(regions["spot"], "spot")
        out.append(view.scan("delay", xs.bins(-2, 5, n=4)))
    xr.testing.assert_equal(out[0]["roi_mean"], out[1]["roi_mean"])
    with pytest.raises(ParameterError, match="no such variable of the events"):
        out[0] = _with_region(bare).scan("delay")


def _with_region(cal: xr.DataArray) -> xs.Explorer:
    view = cal.sd.explore(frames=2)
    view.add(xs.Circle((0.002, 0.002), 0.001))
    return view


def test_bins_and_averages_are_explored_too(cal: xr.DataArray) -> None:
    average = cal.sd.average()["calibrated"].compute()
    view = average.sd.explore()
    view.add(xs.Circle((0.002, 0.002), 0.001))
    assert int(view.numbers()["n_valid"][0]) > 0
    small = cal.sd.reduce({"r": xs.roi(xs.Box(segment=0))})
    cube = small.sd.cube({"delay": xs.bins(-2, 5, n=3)}, images={"pictures": cal}).compute()
    view = cube["pictures"].sd.explore()
    assert view.show(delay=2).title.startswith("delay 2 (")
    with pytest.raises(ParameterError, match="no such frame"):
        view.show(event=1)
    with pytest.raises(DataError, match="a spectrum is of events"):
        view.droplets(3.0)


def test_what_cannot_be_drawn_is_told_and_changes_nothing(view: xs.Explorer) -> None:
    view.tool("band")
    mouse(view, (0.0, 0.0), (0.002, 0.002))  # begins in the gap
    assert view.regions == {}
    assert "pixel to pixel" in view.mouse.axes.get_title()
    with pytest.raises(ParameterError, match="no pixel"):
        view.add(xs.Circle((0.5, 0.5), 1e-3))
    with pytest.raises(ParameterError, match="unknown tool"):
        view.tool("circel")
    with pytest.raises(ParameterError, match="no such region"):
        view.remove("spot")
    with pytest.raises(ParameterError, match="which regions"):
        view.scan()


def test_frames_without_all_pixel_dims_are_refused(cal: xr.DataArray) -> None:
    with pytest.raises(DataError, match="all dims of pixels"):
        cal.isel(segment=0).sd.explore()
    with pytest.raises(DataError, match="flags of pixels"):
        cal.sd.explore(reasons=cal)


def test_colours_range_over_quantiles(view: xs.Explorer) -> None:
    view.colors(10, 60)
    main = view.mouse.axes.images[1]
    values = np.asarray(main.get_array(), dtype=np.float64)
    expected = np.nanpercentile(np.where(np.ma.getmaskarray(main.get_array()), np.nan, values), (10, 60))
    assert np.allclose((main.norm.vmin, main.norm.vmax), expected)


def test_without_a_browser_a_picture_is_shown(view: xs.Explorer) -> None:
    bundle = view._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/png"}
    assert "0 regions" in bundle["text/plain"]
