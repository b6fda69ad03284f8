"""``droplet``: the list of an event over all segments, its labels, its end."""

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, GeometryError, ParameterError
from xsmall.frames.variance import paired
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


@pytest.mark.parametrize("room", [0, 1, 30])
def test_lists_grow_with_what_is_found(placed: xr.DataArray, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = placed.sd.droplet(4.0, 0.6, also=["max", "touches"])
    monkeypatch.setattr("xsmall.reductions.droplet._FIRST_ROOM", room)
    found = placed.sd.droplet(4.0, 0.6, also=["max", "touches"])
    assert (found["n_droplets"] > 30).all()
    for name, values in expected.data_vars.items():
        for a, b in zip(found[name].values, values.values, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("flood", [False, True])
@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("low", [0.55, 0.7, 4.0])
def test_lists_per_event_are_those_of_the_twin(placed: xr.DataArray, flood: bool, diagonal: bool, low: float) -> None:
    mask = np.random.default_rng(3).random(placed.shape[1:]) > 0.1
    grow, neighbours = ("flood" if flood else "ring"), (8 if diagonal else 4)
    also = ["max", "first_row", "last_row", "first_column", "last_column", "touches"]
    out = placed.sd.droplet(4.0, low, mask=mask, neighbours=neighbours, grow=grow, also=also)
    for event in range(placed.sizes["event"]):
        expected = [
            (s, d)
            for s in range(2)
            for d in twin(placed.values[event, s], mask[s], 4.0, low, flood=flood, diagonal=diagonal)
        ]
        got = {name: v.values[event] for name, v in out.data_vars.items()}
        assert got["n_droplets"] == len(expected)
        assert got["segment"].tolist() == [s for s, _ in expected]
        assert got["n_pixels"].tolist() == [d.size for _, d in expected]
        assert got["max"].tolist() == [np.float32(d.highest) for _, d in expected]
        assert got["touches"].tolist() == [d.touches for _, d in expected]
        for i, name in enumerate(also[1:5]):
            assert got[name].tolist() == [d.outline[i] for _, d in expected]
        np.testing.assert_allclose(got["sum"], [d.total for _, d in expected], rtol=1e-6)
        np.testing.assert_allclose(got["row"], [d.row for _, d in expected], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(got["column"], [d.column for _, d in expected], rtol=1e-9, atol=1e-9)


def test_a_list_that_is_cut_says_so(frames: xr.DataArray) -> None:
    whole = frames.sd.droplet(4.0, max_droplets=300)
    assert not whole["is_cut"].any()
    with pytest.warns(UserWarning, match="cut at max_droplets=70"):
        few = frames.sd.droplet(4.0, max_droplets=70)
    xr.testing.assert_equal(few["n_droplets"], whole["n_droplets"])
    xr.testing.assert_equal(few["sum"], whole["sum"][:, :70])
    assert few["is_cut"].values.tolist() == (whole["n_droplets"] > 70).values.tolist()
    assert 0 < few["is_cut"].sum() < 7


def test_nothing_is_lost_by_default(frames: xr.DataArray) -> None:
    dense = xr.ones_like(frames).where((frames.row + frames.column) % 2 == 0, 0.0)
    found = dense.sd.droplet(0.5)
    assert found["n_droplets"].values.tolist() == [2 * 40 * 35] * 7
    flat = xs.flatten(found)
    assert flat.sizes["droplet"] == 7 * 2 * 40 * 35
    assert set(flat["segment"].values.tolist()) == {0, 1}


def test_cuts_keep_what_lies_between_them(frames: xr.DataArray) -> None:
    flat = xs.flatten(frames.sd.droplet(4.0, 0.5))
    kept = xs.flatten(frames.sd.droplet(4.0, 0.5, sums=(9.5, 20.0), sizes=(2, 5)))
    mine = (flat["sum"] >= 9.5) & (flat["sum"] <= 20.0) & (flat["n_pixels"] >= 2) & (flat["n_pixels"] <= 5)
    assert 0 < int(mine.sum()) < flat.sizes["droplet"]
    xr.testing.assert_equal(kept["sum"], flat["sum"][mine.values])
    assert int(kept["n_droplets"].sum()) == kept.sizes["droplet"]


def test_places_lie_between_the_pixels(placed: xr.DataArray) -> None:
    flat = xs.flatten(placed.sd.droplet(4.0, 0.5, also=["x", "y", "z", "q", "radius"]))
    np.testing.assert_allclose(flat["x"], -3e-3 + 75e-6 * flat["column"], rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(flat["y"], -5e-3 + 4e-3 * flat["segment"] + 75e-6 * flat["row"], rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(flat["z"], 0.1, rtol=1e-7)
    np.testing.assert_allclose(flat["radius"], np.hypot(flat["x"], flat["y"]), rtol=1e-3, atol=2e-6)
    wavelength = 12.398419843320026 / 9.5
    q = 4 * np.pi / wavelength * np.sin(np.arctan(np.hypot(flat["x"], flat["y"]) / 0.1) / 2)
    np.testing.assert_allclose(flat["q"], q, rtol=1e-3, atol=1e-4)
    assert flat["q"].attrs["units"] == "angstrom-1"
    twice = placed.sd.assign_beam(photon_energy=xr.DataArray(9500.0 + 1000.0 * np.arange(7), dims="event"))
    other = xs.flatten(twice.sd.droplet(4.0, 0.5, also="q"))
    energies = np.repeat(9500.0 + 1000.0 * np.arange(7), flat["n_droplets"].values)
    np.testing.assert_allclose(other["q"], flat["q"] * energies / 9500.0, rtol=1e-9)


def test_masked_pixels_are_neither_seeds_nor_members(placed: xr.DataArray) -> None:
    mask = np.random.default_rng(0).random(placed.shape[1:]) > 0.2
    xr.testing.assert_equal(
        xs.flatten(placed.sd.droplet(4.0, 0.5, mask=mask)),
        xs.flatten(placed.where(xr.DataArray(mask, dims=placed.dims[1:])).sd.droplet(4.0, 0.5)),
    )
    assert not placed.sd.droplet(4.0, mask=np.zeros_like(mask))["n_droplets"].any()


def test_variances_are_propagated(frames: xr.DataArray) -> None:
    both = paired(xr.Dataset({"cal": frames, "cal_variance": xr.full_like(frames, 0.25)}))
    out = xs.flatten(both.sd.droplet(4.0, 0.6))
    np.testing.assert_allclose(out["sum_variance"], 0.25 * out["n_pixels"])


@pytest.mark.parametrize("most", [None, 300])
def test_results_do_not_depend_on_chunks(frames: xr.DataArray, computing_is_forbidden, most: int | None) -> None:  # type: ignore[no-untyped-def]
    whole = xs.flatten(frames.sd.droplet(4.0, 0.6, max_droplets=most, also="touches"))
    for chunks in (1, 2, 5):
        with computing_is_forbidden():
            lazy = frames.chunk(event=chunks).sd.droplet(4.0, 0.6, max_droplets=most, also="touches")
        xr.testing.assert_identical(xs.flatten(lazy).compute(), whole)
    assert frames[:0].sd.droplet(4.0)["sum"].shape == (0,)


def test_two_kinds_of_droplets_in_one_pass_have_lists_of_their_own(frames: xr.DataArray) -> None:
    both = frames.sd.reduce({"one": xs.droplet(4.0), "all": xs.droplet(4.0, 0.5, neighbours=8)})
    flat = xs.flatten(both)
    for name, alone in (("one", frames.sd.droplet(4.0)), ("all", frames.sd.droplet(4.0, 0.5, neighbours=8))):
        assert flat[f"{name}_sum"].dims == (f"{name}_droplet",)
        assert flat[f"{name}_n_droplets"].attrs["sample_dimension"] == f"{name}_droplet"
        np.testing.assert_array_equal(flat[f"{name}_sum"], xs.flatten(alone)["sum"])


def test_frames_without_a_unit_are_told(frames: xr.DataArray) -> None:
    bare = frames.copy()
    del bare.attrs["units"]
    with pytest.warns(UserWarning, match="do not say their unit"):
        bare.sd.droplet(4.0)


def test_places_without_a_geometry_are_refused(frames: xr.DataArray) -> None:
    with pytest.raises(GeometryError, match="no x without a geometry"):
        frames.sd.droplet(4.0, also="x")


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
        {"threshold": 1.0, "neighbours": 6},
        {"threshold": 1.0, "grow": "tree"},
        {"threshold": 1.0, "also": ["colour"]},
        {"threshold": 1.0, "sums": (3, 1)},
        {"threshold": 1.0, "sizes": 3},
    ],
)
def test_invalid_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ParameterError):
        xs.droplet(**arguments)


def test_frames_with_pixels_left_out_are_refused(placed: xr.DataArray) -> None:
    with pytest.raises(DataError, match="neighbours"):
        placed.isel(row=slice(None, None, 2)).sd.droplet(4.0)


def test_a_threshold_in_another_unit_than_the_data_is_told() -> None:
    frames = xr.DataArray(np.ones((1, 1, 4, 4)), dims=("event", "segment", "row", "column"), attrs={"units": "keV"})
    with pytest.warns(UserWarning, match="4.75 keV is 4.75"):
        assert int(xs.apply(frames, xs.droplet(4750.0))["n_droplets"][0]) == 0


@pytest.mark.parametrize("segments", [1, 2])
def test_frames_that_cannot_be_written_to_are_read(frames: xr.DataArray, segments: int) -> None:
    some = frames.isel(event=slice(2), segment=slice(segments)).compute()
    locked = some.copy(data=some.values.copy())
    locked.values.flags.writeable = False
    noise = xr.ones_like(some.isel(event=0, drop=True))
    arguments = {"threshold": xs.sigma(3), "threshold_low": xs.sigma(1), "noise": noise, "max_droplets": 300}
    xr.testing.assert_equal(locked.sd.droplet(**arguments), some.sd.droplet(**arguments))


def test_a_plan_says_that_lists_are_in_no_number() -> None:
    sim = xs.simulate(4, shape=(1, 16, 32), seed=1)
    cal = sim.run["jungfrau/raw"].sd.calibrate(sim.constants)
    lists = cal.sd.reduce({"drops": xs.droplet(5, 2), "spot": xs.roi(xs.Box(segment=0))})
    assert "and 5 variables of lists, as long as they are" in repr(lists.sd.plan())
    assert "lists" not in repr(cal.sd.roi(xs.Box(segment=0)).sd.plan())
