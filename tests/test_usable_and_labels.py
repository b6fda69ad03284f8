"""One rule of what may be used and of which pixels these are, on every way frames can go."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.detector.part import Part
from xsmall.errors import DataError, GeometryError, ParameterError

PLACE = ("event", "segment")
DIMS = (*PLACE, "row", "column")


def damaged() -> xr.DataArray:
    """Words of 100 in four events of one segment; the second is damaged, the fourth missing."""
    raw = np.full((4, 1, 6, 8), 100, np.uint16)
    raw[1], raw[3] = 60000, 0
    coords = {
        "damage": (PLACE, np.array([[0], [4], [0], [0]], np.uint16)),
        "present": (PLACE, np.array([[1], [1], [1], [0]], bool)),
    }
    panel = xs.Panel(origin=(-0.4e-3, -0.3e-3, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(6, 8))
    frames = xr.DataArray(raw, dims=DIMS, coords=coords, attrs={"units": "ADU"})
    placed: xr.DataArray = frames.sd.assign_geometry(xs.Geometry.from_panels([panel]))
    return placed.sd.assign_beam(photon_energy=9500, distance=0.1)


WAYS: dict[str, Callable[[xr.DataArray], Any]] = {
    "as they are": lambda f: f,
    "less a dark": lambda f: f - 10.0,
    "as floats": lambda f: f.astype("f4"),
    "times a number": lambda f: f * 0.5,
    "masked": lambda f: f.where(f.row > 0),
    "lazy": lambda f: f.chunk(event=3) * 1.5,
    "without a unit": lambda f: (f - 1.0).drop_attrs(deep=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_damaged_and_missing_segments_are_not_used_whatever_is_made_of_them(way: str) -> None:
    frames = WAYS[way](damaged())
    inner = frames.isel(row=slice(1, None))
    one = inner.isel(event=0).values.astype(float).mean()
    roi = inner.sd.roi(xs.Box(segment=0)).compute()
    assert roi["n_valid"].values.ravel().tolist() == [40, 0, 40, 0]
    assert inner.sd.azint(1, quantity="radius")["n_valid"].values.ravel().tolist() == [40, 0, 40, 0]
    assert inner.sd.projection("row")["n_valid"].sum() == 80
    np.testing.assert_allclose(inner.rename("f").sd.average()["f"].mean(), one, rtol=1e-6)
    for picture in (inner.sd.image(), inner.sd.polar(n_radius=1, n_azimuth=1).intensity, inner.sd.at([0.0], [0.0])):
        found = picture.mean([d for d in picture.dims if d != "event"]).values
        np.testing.assert_allclose(found, [one, np.nan, one, np.nan], rtol=1e-6)


@pytest.mark.parametrize("lazy", [False, True])
def test_calibrated_frames_that_were_moved_between_events_follow_their_own_values(lazy: bool) -> None:
    sim = xs.simulate(6, shape=(2, 16, 32), seed=1)
    raw = sim.run["jungfrau"]["raw"]
    present = np.ones((6, 2), bool)
    present[2, 1] = False
    raw = raw.where(xr.DataArray(present, dims=PLACE), 0).astype("u2").assign_attrs(raw.attrs)
    cal = raw.assign_coords(present=(PLACE, present)).chunk(event=2 if lazy else 6).sd.calibrate(sim.constants)
    assert cal["unusable"].values.tolist() == (~present).tolist()
    cal = cal if lazy else cal.compute()
    box = xs.Box(segment=1)
    moves = {
        "shift": cal.shift(event=1),
        "roll": cal.roll(event=1, roll_coords=False),
        "rolling": cal.chunk(event=-1).rolling(event=3, min_periods=1).mean() if lazy
        else cal.rolling(event=3, min_periods=1).mean(),
        "filled": cal.fillna(1.0),
    }  # fmt: skip
    for name, moved in moves.items():
        values = moved.sel(segment=1).compute()
        expected = values.mean(("row", "column")).values
        np.testing.assert_allclose(moved.sd.roi(box)["mean"].values.ravel(), expected, rtol=1e-5, err_msg=name)
    later = cal.assign_coords(present=cal.present & (cal.segment == 0))
    assert later.sd.roi(box)["n_valid"].sum() == 0
    assert later.sd.roi(xs.Box(segment=0))["n_valid"].sum() > 0


def test_pixels_that_are_not_finite_are_in_no_picture() -> None:
    frames = damaged().isel(event=[0]).astype("f8")
    frames[0, 0, 2, 3], frames[0, 0, 4, 5] = np.inf, -np.inf
    polar = frames.sd.polar(n_radius=1, n_azimuth=1)
    assert (float(polar.intensity.item()), float(polar.n_valid.item())) == (100.0, 46.0)
    for method in ("nearest", "area"):
        assert float(frames.sd.image(method=method).max()) == 100.0


def test_rows_columns_and_segments_in_any_order_give_the_same(computing_is_forbidden: Any) -> None:
    sim = xs.simulate(3, shape=(3, 8, 16), seed=3)
    cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).compute()
    cal = cal.sd.assign_geometry(sim.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    rng = np.random.default_rng(0)
    mixed = cal.isel(segment=[2, 0, 1], row=rng.permutation(8), column=rng.permutation(16))
    mask = xr.DataArray(rng.random((3, 8, 16)) > 0.2, dims=DIMS[1:], coords={d: cal[d] for d in DIMS[1:]})
    other = mask.isel(segment=[1, 2, 0], row=slice(None, None, -1))
    box = xs.Box(segment=1, row=(2, 7), column=(3, 13))
    records = {
        "roi": lambda m: xs.roi(box, mask=m),
        "row": lambda m: xs.projection("row", mask=m),
        "box": lambda m: xs.projection("column", box, mask=m),
        "waxs": lambda m: xs.azint(bins=7, quantity="radius", mask=m),
        "pairs": lambda m: xs.autocorrelation(box, max_lag=2, mask=m),
        "hits": lambda m: xs.droplet(4.0, 1.0, max_droplets=200, mask=m),
    }
    plain = cal.sd.reduce({name: make(mask) for name, make in records.items()})
    turned = mixed.sd.reduce({name: make(other) for name, make in records.items()})
    for name in plain.data_vars:
        if str(name).startswith("hits_") and name != "hits_n_droplets":
            continue  # lists follow the order of the segments
        ours = turned[name].reindex_like(plain[name]) if str(name)[:4] in ("row_", "box_") else turned[name]
        np.testing.assert_allclose(ours.values, plain[name].values, rtol=1e-5, atol=1e-9, err_msg=str(name))
    lists = [np.sort(d["hits_sum"].values, axis=1) for d in (plain, turned)]
    np.testing.assert_allclose(*lists, rtol=1e-6)
    np.testing.assert_allclose(mixed.sd.image().values, cal.sd.image().values, rtol=1e-6)


def test_an_event_without_a_measured_energy_has_no_pixel_and_bends_no_axis() -> None:
    det = damaged().isel(event=[0, 0, 0, 0]).drop_vars(["damage", "present"]).astype("f4")
    q = det.sd.pixel("q").values
    for stand_in in (0.0, 1e-4, -3.0, np.nan):
        own = det.assign_coords(photon_energy=("event", [9500.0, stand_in, 9400.0, 9500.0], {"units": "eV"}))
        found = own.sd.azint(bins=6)
        assert found["n_valid"].sum("q").values.tolist()[1] == 0
        assert found["n_valid"].sum("q").values.tolist()[0] > 0
        np.testing.assert_allclose(found["q_bounds"].values[-1, 1], q.max() * (2 * 9500 + 9400) / 3 / 9500, rtol=1e-3)
        assert np.isnan(own.sd.pixel("q").values[1]).all()


def test_a_beam_in_another_unit_is_refused() -> None:
    det = damaged()
    for unit in ("keV", "mm"):
        with pytest.raises(ParameterError, match="another unit"):
            det.assign_coords(photon_energy=((), 9.5, {"units": unit})).sd.azint(3)


def test_the_remedy_for_a_lost_dim_works_when_typed() -> None:
    sim = xs.simulate(4, shape=(2, 16, 32), seed=1)
    cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    for lost in ({"segment": 1}, {"event": 2}, {"segment": 0, "row": 3}):
        few = cal.isel(lost)
        with pytest.raises(DataError) as error:
            few.sd.projection("row")
        typed = str(error.value).rpartition("or ")[2].strip()
        again = eval("few" + typed, {"few": few})
        expected = cal.isel({k: [v] for k, v in lost.items()}).sd.projection("row")
        np.testing.assert_array_equal(again.sd.projection("row")["projection"], expected["projection"])


def test_flags_of_reasons_are_a_mask_and_numbers_are_none() -> None:
    frames = damaged().isel(event=[0])
    flags = xs.mask(frames, edges=1)
    box = xs.Box(segment=0)
    assert frames.sd.roi(box, mask=flags)["n_valid"].item() == 24
    assert frames.sd.roi(box, mask=xs.usable(flags))["n_valid"].item() == 24
    assert int((xs.mask(frames, user=flags) == 0).sum()) == 24
    for numbers in (flags.values, flags.drop_attrs()):
        for use in (lambda m: frames.sd.roi(box, mask=m), lambda m: xs.mask(frames, user=m)):
            with pytest.raises(ParameterError, match="whether 1 means good or bad"):
                use(numbers)


def test_parts_are_found_in_each_other() -> None:
    part = Part((2, 0), (5, 3, 4), range(7, 4, -1))
    whole = np.arange(3 * 6 * 8).reshape(3, 6, 8)
    np.testing.assert_array_equal(part.take(whole), whole[np.ix_([2, 0], [5, 3, 4], [7, 6, 5])])
    wide = Part(range(3), (4, 0, 3, 5), range(8))
    np.testing.assert_array_equal(part.match(wide, "noise").take(wide.take(whole)), part.take(whole))
    assert Part.of([np.array([2, 0]), [5, 3, 4], [7, 6, 5]]) == part
    assert hash(Part.of([(2, 0), [5, 3, 4], range(7, 4, -1)])) == hash(part)
    found = wide.find([np.array([1, -1]), np.array([3, -1]), np.array([2, -1])])
    assert [a.tolist() for a in found] == [[1, -1], [2, -1], [2, -1]]
    with pytest.raises(DataError, match="does not cover every segment"):
        Part.whole((4, 6, 8)).match(wide, "noise")
    with pytest.raises(DataError, match="row twice"):
        Part.whole((1, 2, 1)).match(Part((0,), (0, 1, 1), (0,)), "noise")
    with pytest.raises(GeometryError, match="do not fit"):
        part.take(whole[:2])
