"""Geometry and beam on labelled data: what survives what, what stays lazy, what is refused."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import DataError, GeometryError, ParameterError
from xsmall.frames.beam import BEAM_COORDS, assign_beam, beam_of
from xsmall.frames.pixels import assign_geometry, geometry_of, pixel

DIMS = ("event", "segment", "row", "column")
GEOMETRY = Geometry.from_panels(
    [
        Panel(origin=(-3e-3 + 5e-3 * i, 1e-3, 0.1), slow=(1e-6, 1e-4, 0), fast=(1e-4, 0, 1e-6), shape=(6, 8))
        for i in range(3)
    ]
)
OTHER = Geometry.from_panels([Panel(origin=(0, 0, 0.1), slow=(0, 1, 0), fast=(1, 0, 0), shape=(6, 8))] * 3)


def frames(events: int = 4, *, lazy: bool = True) -> xr.DataArray:
    values = np.arange(events * 3 * 6 * 8, dtype=np.float32).reshape(events, 3, 6, 8)
    data = da.from_array(values, chunks=(2, 3, 6, 8)) if lazy else values
    stamps = np.datetime64("2024-01-01", "ns") + np.arange(events)
    raw = xr.DataArray(data, dims=DIMS, coords={"event": stamps}, name="raw")
    return assign_beam(assign_geometry(raw, GEOMETRY), photon_energy=9500, distance=0.1, center=(1e-4, 0))


def carries(obj: xr.DataArray | xr.Dataset) -> bool:
    return geometry_of(obj) == GEOMETRY and beam_of(obj) == Beam(photon_energy=9500, distance=0.1, center=(1e-4, 0))


def test_nothing_computes_on_assigning_slicing_or_combining(
    computing_is_forbidden: Callable[[], AbstractContextManager[None]],
) -> None:
    with computing_is_forbidden():
        a, b = frames(), frames()
        made = [
            a + b,
            a * 2 - b,
            a.isel(segment=1),
            a.isel(segment=[2, 0], row=slice(1, 4), column=3) + b.isel(segment=[2, 0], row=slice(1, 4), column=3),
            a.sel(segment=1, row=[0, 5]),
            a.where(a > 3),
            xr.concat([a, b], dim="event"),
            xr.merge([a, b.rename("other")], compat="no_conflicts"),
            a.mean("event"),
            xr.apply_ufunc(np.sqrt, a, dask="allowed"),
            xr.Dataset({"a": a})["a"],
            xr.DataTree.from_dict({"/jungfrau": xr.Dataset({"raw": a})})["jungfrau"]["raw"],
        ]
    for one in made:
        assert carries(one)
        assert one.x.dims == tuple(d for d in DIMS[1:] if d in one.dims)


def test_grouping_by_a_variable_of_events_keeps_geometry_and_beam() -> None:
    data = frames().assign_coords(laser_on=("event", [True, False, True, False]))
    assert carries(data.groupby("laser_on").mean())


def test_positions_are_float32_of_the_geometry() -> None:
    data, at = frames(), GEOMETRY.positions()
    for i, name in enumerate("xyz"):
        assert data[name].dtype == np.float32
        assert data[name].attrs["units"] == "m"
        np.testing.assert_array_equal(data[name].values, at[..., i].astype(np.float32))


@pytest.mark.parametrize(
    "index",
    [
        {"segment": 1},
        {"row": slice(1, 5, 2)},
        {"segment": [2, 0], "column": [7, 1, 3]},
        {"segment": 1, "row": 2, "column": 3},
        {"segment": slice(1, 2)},
        {"row": slice(None, None, -1)},
    ],
)
@pytest.mark.parametrize("name", ["x", "q", "solid_angle"])
def test_quantities_of_a_slice_are_the_slice_of_the_quantities(index: dict[str, object], name: str) -> None:
    data = frames()
    xr.testing.assert_identical(pixel(data.isel(index), name), pixel(data, name).isel(index))


def test_positions_can_be_assigned_to_a_slice_by_its_labels() -> None:
    data = frames().isel(segment=[0, 2], row=slice(1, 3))
    bare = data.drop_vars(["x", "y", "z", "geometry"])
    again = assign_geometry(bare, GEOMETRY)
    np.testing.assert_array_equal(again.x.values, data.x.values)


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_geometry_and_beam_survive_a_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data.{suffix}"
    data = frames().isel(segment=slice(1, 3))
    if suffix == "zarr":
        data.to_dataset().to_zarr(path, zarr_format=3)
        back = xr.open_zarr(path)["raw"]
    else:
        data.to_dataset().to_netcdf(path)
        back = xr.open_dataset(path)["raw"]
    assert carries(back)
    np.testing.assert_array_equal(pixel(back, "q").values, pixel(data, "q").values)
    back.close()


def test_two_geometries_in_one_sum_drop_both_visibly() -> None:
    other = assign_geometry(frames().drop_vars(["x", "y", "z", "geometry"]), OTHER)
    both = frames() + other
    assert geometry_of(both) is None
    with pytest.raises(GeometryError, match="different geometries"):
        pixel(both, "x")


def test_the_graph_of_positions_holds_the_rule_and_not_the_arrays() -> None:
    big = xr.DataArray(da.zeros((10**6, 3, 6, 8), chunks=(10**4, 3, 6, 8)), dims=DIMS)
    data = assign_geometry(big, GEOMETRY)
    assert len(data.x.data.dask) <= 3
    assert data.x.data.name == assign_geometry(big[:5], GEOMETRY).x.data.name


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (xr.DataArray(np.zeros((3, 6, 7)), dims=DIMS[1:]), "another detector"),
        (xr.DataArray(np.zeros((2, 6, 8)), dims=DIMS[1:]), "another detector"),
        (xr.DataArray(np.zeros((6, 8)), dims=DIMS[2:]), "data without 'segment'"),
        (xr.DataArray(np.zeros(5), dims="event"), "without pixels"),
        (xr.DataArray(np.zeros((3, 6, 8)), dims=DIMS[1:], coords={"segment": [0, 1, 3]}), "do not fit"),
        (xr.DataArray(np.zeros((3, 6, 8)), dims=DIMS[1:], coords={"segment": [0, 1, 1.5]}), "do not fit"),
        (xr.DataArray(np.zeros((3, 6, 8)), dims=DIMS[1:], coords={"row": np.arange(6) - 1}), "do not fit"),
    ],
)
def test_data_of_another_shape_are_refused(data: xr.DataArray, says: str) -> None:
    with pytest.raises(GeometryError, match=says):
        assign_geometry(data, GEOMETRY)


def test_something_that_is_no_geometry_is_refused() -> None:
    with pytest.raises(GeometryError, match="open_geometry"):
        assign_geometry(frames(), "geometry.data")  # type: ignore[arg-type]


def test_a_geometry_without_its_rule_is_refused() -> None:
    data = frames()
    data.geometry.attrs.clear()
    lost = data.assign_coords(geometry=1)
    with pytest.raises(GeometryError, match="lost its rule"):
        geometry_of(lost)
    swapped = frames().assign_coords(geometry=frames().geometry.variable * 0)
    swapped.geometry.attrs["rule"] = GEOMETRY.to_json()
    with pytest.raises(GeometryError, match="token"):
        geometry_of(swapped)


def test_pixels_that_were_averaged_away_are_refused() -> None:
    with pytest.raises(GeometryError, match="lost their row"):
        pixel(frames().mean("row"), "q")
    with pytest.raises(GeometryError, match="labels of row"):
        pixel(frames().coarsen(row=2).mean(), "q")


def test_q_without_a_beam_says_what_to_type() -> None:
    data = frames()
    with pytest.raises(ParameterError, match="vanish in arithmetic"):
        pixel(data + assign_beam(data, photon_energy=9600), "q")
    bare = data.drop_vars(list(BEAM_COORDS))
    assert beam_of(bare) is None
    with pytest.raises(ParameterError, match="assign_beam"):
        pixel(bare, "q")
    assert pixel(bare, "radius").shape == (3, 6, 8)


def test_a_plane_of_polarization_is_for_polarization_only() -> None:
    panel = Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(2, 3))
    beam = Beam(distance=0.1)
    for name, options in (("solid_angle", {"plane": 0}), ("x", {"fraction": 1}), ("polarization", {"plane": 0})):
        with pytest.raises(ParameterError, match="polarization needs"):
            pixel_array(Geometry.from_panels([panel]), beam, name, **options)


def test_a_centre_or_tilt_that_got_lost_is_missed() -> None:
    data = frames()
    moved = data + assign_beam(data, center=(2e-4, 0))
    tilted = data + assign_beam(data, tilt_x=1)
    for lost, name in ((moved, "center"), (tilted, "tilt_x")):
        with pytest.raises(ParameterError, match=name):
            pixel(lost, "radius")
        assert pixel(lost, "x").shape == (3, 6, 8)
        assert pixel(assign_beam(lost, center=(0, 0), tilt_x=0), "radius").shape == (3, 6, 8)
    per_event = data.assign_coords(center_x=("event", [1e-4, 2e-4, 3e-4, 4e-4]))
    assert pixel(per_event, "radius").dims == ("event", "segment", "row", "column")
    with pytest.raises(ParameterError, match="center"):
        pixel(per_event.drop_vars("center_y"), "radius")


def test_beam_values_that_are_not_given_stay() -> None:
    data = assign_beam(frames(), distance=0.2, tilt_y=3)
    assert beam_of(data) == Beam(photon_energy=9500, distance=0.2, center=(1e-4, 0), tilt_y=3)
    assert beam_of(assign_beam(data, beam=Beam(distance=0.3), photon_energy=8000)) == Beam(8000, 0.3)
    with pytest.raises(ParameterError, match="no value"):
        assign_beam(data)
    with pytest.raises(ParameterError, match="9500"):
        assign_beam(data, photon_energy=9.5)
    with pytest.raises(ParameterError, match="m"):
        assign_beam(data, distance=92.5)


def test_a_photon_energy_per_event_gives_q_per_event_lazily(
    computing_is_forbidden: Callable[[], AbstractContextManager[None]],
) -> None:
    energies = np.array([9400.0, 9500, 9600, np.nan])
    with computing_is_forbidden():
        data = assign_beam(frames(), photon_energy=energies)
        q = pixel(data.isel(segment=1), "q")
    assert q.dims == ("event", "row", "column")
    for i in range(3):
        one = assign_beam(frames(), photon_energy=energies[i])
        np.testing.assert_allclose(q[i].values, pixel(one.isel(segment=1), "q").values, rtol=1e-12)
    assert np.isnan(q[3].values).all()
    beam = beam_of(data)
    assert beam is not None
    assert beam.photon_energy is None
    same = assign_beam(frames(), photon_energy=np.full(4, 9500.0))
    assert beam_of(same) == beam_of(frames())


def test_a_monitor_that_measured_nothing_stops_only_what_needs_it() -> None:
    data = frames().drop_vars("photon_energy").assign_coords(photon_energy=("event", np.zeros(4)))
    assert pixel(data, "two_theta").shape == (3, 6, 8)
    with pytest.raises(ParameterError, match="photon_energy"):
        pixel(data, "q")


def test_photon_energies_of_other_events_or_in_kev_are_refused() -> None:
    data = frames()
    energies = xr.DataArray(
        np.full(4, 9500.0), dims="event", coords={"event": data.event.values + np.timedelta64(1, "ns")}
    )
    with pytest.raises(DataError, match="other events"):
        assign_beam(data, photon_energy=energies)
    with pytest.raises(ParameterError, match="does not fit"):
        assign_beam(data, photon_energy=np.full(3, 9500.0))
    with pytest.raises(ParameterError, match="eV"):
        assign_beam(data, photon_energy=np.full(4, 9.5))
    assert beam_of(assign_beam(data, photon_energy=energies.drop_vars("event"))) == beam_of(data)


def test_a_pair_of_values_and_variances_is_told_which_of_it_are_frames(tmp_path: Path) -> None:
    frames = xr.DataArray(np.ones((2, 1, 4, 4)), dims=("event", "segment", "row", "column"), name="cal")
    with pytest.raises(DataError, match=r"frames\['cal'\]"):
        xs.save_frames(xs.with_variance(frames, 1.0), tmp_path / "run.cxi")  # type: ignore[arg-type]
