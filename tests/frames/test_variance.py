"""A variance stays with its values through what chooses, orders or joins, and is refused after any other arithmetic."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

BOX = xs.Box(segment=0)
TIMES = np.datetime64("2026-01-01", "ns") + np.arange(8) * np.timedelta64(1, "ms")


def frames(value: float = 10.0) -> xr.DataArray:
    data = value + np.arange(8 * 16, dtype=float).reshape(8, 1, 4, 4)
    dims = ("event", "segment", "row", "column")
    return xr.DataArray(data, dims=dims, coords={"event": TIMES}, name="cal", attrs={"units": "keV"})


def pair(lazy: bool = False) -> xr.Dataset:
    made = xs.with_variance(frames(), 4.0 + 0 * frames())
    return made.chunk(event=3) if lazy else made


def errors(both: xr.Dataset) -> np.ndarray:
    return both.sd.roi(BOX)["sum_variance"].values[:, 0]


SAFE: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "isel": lambda d: d.isel(event=[5, 1, 2]),
    "sel": lambda d: d.sel(event=TIMES[2:5]),
    "a slice of pixels": lambda d: d.isel(row=slice(1, 3)),
    "sortby": lambda d: d.sortby("event", ascending=False),
    "concat": lambda d: xr.concat([d.isel(event=slice(4)), d.isel(event=slice(4, None))], "event"),
    "xs.concat": lambda d: xs.concat([d.isel(event=slice(4)), d.isel(event=slice(4, None))]),
    "merge": lambda d: xr.merge([d, xr.Dataset({"i0": ("event", np.ones(8))}, {"event": TIMES})]),
    "rename": lambda d: d.rename(cal="a", cal_variance="a_variance"),
    "chunk": lambda d: d.chunk(event=2),
    "compute": lambda d: d.chunk(event=2).compute(),
    "persist": lambda d: d.chunk(event=2).persist(),
    "copy": lambda d: d.copy(deep=True),
    "pickle": lambda d: pickle.loads(pickle.dumps(d)),
    "assign_coords": lambda d: d.assign_coords(i0=("event", np.ones(8))),
    "align": lambda d: xr.align(d, d.isel(event=[1, 2]))[0],
    "a tree": lambda d: xr.DataTree.from_dict({"/a": d})["a"].to_dataset(),
    "one group": lambda d: next(iter(d.groupby("event")))[1],
}

ARITHMETIC: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "divide": lambda d: d / 2,
    "divide by itself": lambda d: d / d,
    "turn round": lambda d: 1 / d,
    "negative": lambda d: -d,
    "times": lambda d: d * xr.DataArray(np.arange(8.0), dims="event"),
    "plus": lambda d: d + 5,
    "minus a dark": lambda d: d - d.isel(event=0),
    "in place": lambda d: d.copy().__imul__(3),
    "the values alone": lambda d: d.assign(cal=d["cal"] * 2),
    "rolling": lambda d: d.rolling(event=2).mean(),
    "cumsum": lambda d: d.cumsum("event"),
    "diff": lambda d: d.diff("event"),
    "groups": lambda d: d.groupby(xr.DataArray(np.arange(8) // 2, dims="event", name="event")).mean(),
    "map": lambda d: d.map(lambda x: x * 2),
    "root": np.sqrt,
    "square": np.square,
    "filled": lambda d: d.fillna(0),
    "apply_ufunc": lambda d: xr.apply_ufunc(lambda x: 2 * x, d, dask="allowed"),
    "interpolated": lambda d: d.interp(event=TIMES[:2] + np.timedelta64(500, "us")),
}


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_chooses_orders_or_joins_keeps_the_variance(name: str, lazy: bool) -> None:
    kept = SAFE[name](pair(lazy))
    np.testing.assert_allclose(errors(kept), 4.0 * kept.sizes["row"] * kept.sizes["column"])


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_computes_with_both_alike_is_refused(name: str, lazy: bool) -> None:
    wrong = ARITHMETIC[name](pair(lazy))
    for use in (lambda d: d.sd.roi(BOX), lambda d: d.sd.average(), lambda d: d.isel(event=[0]).sd.azint(bins=3)):
        with pytest.raises(DataError, match=r"may not be the variance of cal any more.*(\n.*)*xs\.scale"):
            use(wrong)


@pytest.mark.parametrize("kept", ["present", "pulse_id", "damage", "run"])
def test_averages_of_events_by_coarsen_are_refused_where_events_have_whole_numbers(kept: str) -> None:
    sim = xs.simulate(12, shape=(1, 16, 16), seed=1)
    both = sim.run["jungfrau/raw"].sd.calibrate(sim.constants, variance=True, photon_energy=9500)
    per_event = [c for c in both.coords if "event" in both[c].dims and c != "event"]
    both = both.drop_vars(per_event).assign_coords(
        {
            kept: ("event", np.arange(12))
            if kept in ("pulse_id", "run")
            else (("event", "segment"), np.ones((12, 1), int))
        }
    )
    errors(both)
    with pytest.raises(DataError, match="may not be the variance"):
        both.coarsen(event=3).mean().sd.roi(BOX)


def test_the_advice_works() -> None:
    half = pair() / 2
    declared = xs.with_variance(half["cal"], half["cal_variance"] / 2)
    np.testing.assert_array_equal(errors(declared), 16.0)
    xr.testing.assert_allclose(declared, pair().sd.scale(1 / 2))


SAVING: dict[str, Callable[[xr.Dataset, Path], object]] = {
    "xs.save.h5": xs.save,
    "xs.save.zarr": xs.save,
    "to_netcdf.nc": lambda d, path: d.to_netcdf(path),
    "to_zarr.zarr": lambda d, path: d.to_zarr(path, consolidated=False),
}


def opened(path: Path) -> xr.Dataset:
    if path.suffix == ".zarr":
        return xr.open_dataset(path, engine="zarr", consolidated=False)
    return xr.open_dataset(path, engine="netcdf4")


@pytest.mark.parametrize("how", SAVING)
@pytest.mark.parametrize("width", ["f4", "f8"])
def test_a_saved_pair_is_one_and_what_is_computed_with_it_is_not(tmp_path: Path, how: str, width: str) -> None:
    both = xs.with_variance(frames().astype(width), 4.0)
    SAVING[how](both, tmp_path / how)
    back = opened(tmp_path / how)
    np.testing.assert_array_equal(errors(back), 64.0)
    with pytest.raises(DataError, match="may not be"):
        (back / 2).sd.roi(BOX)
    SAVING[how](back.compute(), tmp_path / f"again-{how}")
    np.testing.assert_array_equal(errors(opened(tmp_path / f"again-{how}")), 64.0)


@pytest.mark.filterwarnings("ignore:saved, but arithmetic")
@pytest.mark.parametrize("how", SAVING)
@pytest.mark.parametrize("change", ["divide", "negative", "the values alone", "filled"])
def test_saving_makes_no_pair_again_of_what_was_computed_with(tmp_path: Path, how: str, change: str) -> None:
    SAVING[how](ARITHMETIC[change](pair()), tmp_path / how)
    with pytest.raises(DataError, match="may not be"):
        opened(tmp_path / how).sd.roi(BOX)
    SAVING[how](pair(), tmp_path / f"whole-{how}")
    SAVING[how](ARITHMETIC[change](opened(tmp_path / f"whole-{how}")), tmp_path / f"changed-{how}")
    with pytest.raises(DataError, match="may not be"):
        opened(tmp_path / f"changed-{how}").sd.roi(BOX)


@pytest.mark.parametrize("how", ["file.h5", "file.zarr"])
def test_saving_warns_of_what_was_computed_with_until_it_is_declared(tmp_path: Path, how: str) -> None:
    with pytest.warns(UserWarning, match="cal_variance may not be the variance"):
        xs.save(pair() / 2, tmp_path / how)
    back = xs.open_result(tmp_path / how)
    with pytest.raises(DataError, match="may not be"):
        back.sd.roi(BOX)
    declared = xs.with_variance(back["cal"], back["cal_variance"] / 2)  # as the error says
    np.testing.assert_array_equal(errors(xs.open_result(xs.save(declared, tmp_path / f"again-{how}"))), 16.0)


def test_a_pair_that_was_packed_by_others_is_saved_as_floats(tmp_path: Path) -> None:
    packed = {"cal": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1, "missing_value": -1}}
    frames().to_dataset().to_netcdf(tmp_path / "packed.nc", encoding=packed)
    both = xs.with_variance(xr.open_dataset(tmp_path / "packed.nc")["cal"], 4.0)
    both.to_netcdf(tmp_path / "pair.nc")
    np.testing.assert_array_equal(xr.open_dataset(tmp_path / "pair.nc")["cal"], both["cal"])
    np.testing.assert_array_equal(errors(opened(tmp_path / "pair.nc")), 64.0)


def test_whole_numbers_with_a_variance_go_through_files(tmp_path: Path) -> None:
    both = xs.with_variance(frames().astype("i4"), 4.0)
    both.to_netcdf(tmp_path / "pair.nc")
    back = opened(tmp_path / "pair.nc")
    assert back["cal"].dtype == np.float64
    np.testing.assert_array_equal(errors(back), 64.0)


@pytest.mark.parametrize("how", ["negative", "one", "a number", "integers"])
def test_a_negative_variance_that_is_lazy_raises_when_it_is_computed(
    how: str, computing_is_forbidden: Callable
) -> None:
    values, variance = frames().chunk(event=3), 4.0 + 0 * frames().chunk(event=3)
    wrong = {
        "negative": -variance,
        "one": variance - 5 * (frames() == frames().max()),
        "integers": -variance.astype(int),
    }
    if how == "a number":
        with pytest.raises(DataError, match="is negative"):
            xs.with_variance(values, -4.0)
        return
    with computing_is_forbidden():
        both = xs.with_variance(values, wrong[how])
        uses = [both.sd.roi(BOX), both.sd.average(), both.isel(event=[7]).sd.roi(BOX), both.sd.scale(2.0)]
    for made in uses:
        with pytest.raises(DataError, match="a variance is negative"):
            made.compute()


def test_the_variance_of_a_calibration_is_still_made_in_its_pass() -> None:
    sim = xs.simulate(12, shape=(1, 16, 16), seed=1)
    both = sim.run["jungfrau/raw"].sd.calibrate(sim.constants, variance=True, photon_energy=9500)
    again = xs.with_variance(both["calibrated"], both["calibrated_variance"])
    assert again["calibrated_variance"].data.name == both["calibrated_variance"].data.name
    np.testing.assert_array_equal(errors(again), errors(both))


@pytest.mark.parametrize("change", ["divide", "negative", "the values alone", "filled"])
def test_small_data_that_were_computed_with_are_refused_where_their_variance_is_used(change: str) -> None:
    box = pair().sd.roi(BOX).isel(roi=0)[["sum", "sum_variance"]].rename(sum="cal", sum_variance="cal_variance")
    kind = xr.DataArray(np.arange(8) % 2, dims="event", coords={"event": TIMES})
    whole = box.assign(kind=kind).sd.cube({"kind": xs.categories()})
    np.testing.assert_allclose(whole["cal_variance"], 64 / 4)
    wrong = ARITHMETIC[change](box).assign(kind=kind)
    with pytest.raises(DataError, match=r"may not be the variance of cal"):
        wrong.sd.cube({"kind": xs.categories()})
    with pytest.raises(DataError, match=r"may not be the variance of cal"):
        wrong.sd.integrate(into=frames().isel(event=[3, 7]))
    declared = wrong.assign(xs.with_variance(wrong["cal"], box["cal_variance"]))  # as the error says
    np.testing.assert_allclose(declared.sd.cube({"kind": xs.categories()})["cal_variance"], 64 / 4)
    assert "cal_variance" not in wrong.drop_vars("cal_variance").sd.cube({"kind": xs.categories()})
    scaled = box.sd.scale(1 / 2).assign(kind=kind).sd.cube({"kind": xs.categories()})
    np.testing.assert_allclose(scaled["cal_variance"], 64 / 4 / 4)
    chosen = box.assign(kind=kind).isel(event=[0, 1, 4, 5]).sd.select(kind=(0, 1))
    np.testing.assert_allclose(chosen.sd.cube({"kind": xs.categories()})["cal_variance"], 64 / 2)


def test_every_pair_that_comes_back_goes_on() -> None:
    sim = xs.simulate(12, shape=(2, 32, 64), seed=1)
    raw = sim.run["jungfrau/raw"].sd.assign_geometry(sim.geometry)
    both = raw.sd.calibrate(sim.constants, variance=True, photon_energy=9500).compute()
    events = sim.run["events"].to_dataset()
    mean = both.sd.average()
    cube = events.sd.cube({"laser_on": xs.categories()}, images={"j": both})
    for made in (
        mean,
        cube[["j", "j_variance"]],
        both.sd.subtract_ghost(0.01),
        both.sd.straighten([0.1, 0.0]).isel(event=slice(2)),
    ):
        name = next(str(v) for v in made.data_vars if f"{v}_variance" in made)
        chosen = made[[name, f"{name}_variance"]]
        assert f"{name}_variance" in xs.scale(chosen, 2.0)
    picture = mean[["calibrated", "calibrated_variance"]].sd.image()
    assert "calibrated_variance" in picture


@pytest.mark.parametrize("lazy", [False, True])
def test_scaled_and_added_pairs_have_pulls_of_unit_width(lazy: bool) -> None:
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.5, 2, (1, 20, 30))
    dims = ("event", "segment", "row", "column")
    truth = rng.uniform(5, 9, (1, 20, 30))

    def measured(scale: float) -> xr.Dataset:
        values = xr.DataArray(scale * truth + scale * sigma * rng.normal(size=(500, 1, 20, 30)), dims=dims, name="cal")
        both = xs.with_variance(values, values * 0 + (scale * sigma) ** 2)
        return both.chunk(event=100) if lazy else both

    i0 = xr.DataArray(rng.uniform(0.5, 2, 500), dims="event", coords={"pulse_id": ("event", np.arange(500))})
    found = measured(1.0).sd.scale(1 / i0).sd.add(measured(0.5), sign=-1).sd.scale(-2.0).sd.add(3.0).compute()
    expected = -2.0 * (truth / i0.values[:, None, None, None] - 0.5 * truth) + 3.0
    pulls = (found["cal"].values - expected) / np.sqrt(found["cal_variance"].values)
    assert abs(pulls.mean()) < 0.01
    assert abs(pulls.std() - 1) < 0.01


def test_scale_and_add_compute_nothing_and_keep_what_was_said(computing_is_forbidden: Callable) -> None:
    both = pair(lazy=True).astype("f4")
    both = xs.with_variance(both["cal"], both["cal_variance"])
    with computing_is_forbidden():
        made = both.sd.scale(2.0).sd.add(both)
    assert {v: made[v].dtype for v in made} == {"cal": np.float32, "cal_variance": np.float32}
    assert made["cal"].attrs["units"] == "keV"
    assert made["cal_variance"].attrs["units"] == "keV2"
    np.testing.assert_array_equal(errors(made), 16 * (4 * 4 + 4))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: xs.with_variance(frames().rename(None), 1.0), DataError, "need a name"),
        (lambda: xs.with_variance(frames(), frames().isel(row=0)), DataError, "has the dims"),
        (lambda: xs.with_variance(frames(), frames().isel(event=slice(3))), DataError, "has the dims"),
        (
            lambda: xs.with_variance(frames(), frames().assign_coords(event=TIMES + np.timedelta64(1, "ns"))),
            DataError,
            "has the labels",
        ),
        (lambda: xs.with_variance(frames(), -1.0), DataError, "is negative"),
        (lambda: xs.with_variance(frames(), frames() - 50), DataError, "is negative"),
        (lambda: xs.scale(frames().to_dataset(), 2), DataError, "without a variance"),
        (lambda: xs.scale(pair(), "2"), ParameterError, "a factor is a number"),
        (lambda: xs.scale(pair(), float("nan")), ParameterError, "a factor is a number"),
        (lambda: xs.scale(pair(), xr.DataArray(np.ones(3), dims="k")), ParameterError, "dims of its own"),
        (lambda: xs.scale(pair(), frames()[:, 0, 0, 0].isel(event=slice(2))), ParameterError, "labels of 'event'"),
        (lambda: xs.add(pair(), pair(), sign=2), ParameterError, "1 or -1"),
        (lambda: xs.add(pair(), frames().assign_attrs(units="ADU")), ParameterError, "different units"),
        (lambda: xs.add(pair(), pair().isel(event=slice(3))), ParameterError, "labels of 'event'"),
    ],
)
def test_mistakes_are_told(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("units", ["photon", "keV", "ADU"])
@pytest.mark.parametrize("lazy", [False, True])
def test_segments_that_are_missing_stay_so_where_whole_numbers_become_floats(units: str, lazy: bool) -> None:
    present = np.arange(8)[:, None] != 3
    counts = frames().astype("u2").assign_attrs(units=units).assign_coords(present=(("event", "segment"), present))
    counts = counts.where(counts["present"], 0).chunk(event=3 if lazy else -1)
    both = xs.with_variance(counts.astype("u2") if lazy else counts.astype("u2").compute(), 4.0)
    found = both.sd.roi(BOX).compute()
    assert found["n_valid"].values[:, 0].tolist() == [16, 16, 16, 0, 16, 16, 16, 16]
    assert np.isnan(found["sum"].values[3, 0])
