"""``photon``: lists, counts of pixels and pictures, from droplets and from single pixels."""

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, GeometryError, ParameterError

CHAIN = {"greedy": xs.droplet(4.0, 1.0) | xs.photon(9.0), "fit": xs.droplet(4.0, 1.0) | xs.photon(9.0, method="fit")}
EVERY = {**CHAIN, "pixels": xs.photon(9.0, thr_fraction=0.8)}


@pytest.fixture
def photons_of_frames() -> xr.DataArray:
    """Frames (5, 2, 30, 70) of whole photons in single pixels, 10 keV each; the last event has none."""
    counts = np.random.default_rng(2).poisson(0.05, (5, 2, 30, 70))
    counts[-1] = 0
    counts[0, 0, 3, 4] = counts[0, 1, 3, 4] = 1  # the same place on two segments is two pixels with one photon
    labels = {"event": np.arange(5).astype("M8[s]").astype("M8[ns]")}
    dims = ("event", "segment", "row", "column")
    return xr.DataArray(counts * np.float32(10.0), labels, dims, attrs={"units": "keV"})


@pytest.mark.parametrize("record", EVERY.values(), ids=EVERY)
def test_every_pixel_is_counted_once_in_its_own_segment(photons_of_frames: xr.DataArray, record: xs.Record) -> None:
    frames = photons_of_frames.where((photons_of_frames.row + photons_of_frames.column) % 2 == 0, 0.0)  # none touch
    found = xs.apply(frames, record)
    truth = (frames.values / 10).round().astype(int)
    assert found["n_photons"].values.tolist() == truth.sum(axis=(1, 2, 3)).tolist()
    for event in range(5):
        expected = np.bincount(truth[event].ravel(), minlength=11)
        assert found["n_k"][event].values.tolist() == expected.tolist()
        got = np.zeros(truth.shape[1:], int)
        at = [found[name].values[event] for name in ("segment", "row", "column")]
        np.add.at(got, tuple(np.rint(v).astype(int) for v in at), 1)
        np.testing.assert_array_equal(got, truth[event])
    assert found["n_k"][-1].values.tolist() == [found["n_valid"].values[-1], *[0] * 10]
    assert (found["n_valid"] == 2 * 30 * 70).all()


@pytest.mark.parametrize("record", EVERY.values(), ids=EVERY)
def test_results_do_not_depend_on_chunks_and_nothing_computes_before(
    frames: xr.DataArray, record: xs.Record, computing_is_forbidden: Callable[[], object]
) -> None:
    whole = xs.flatten(xs.apply(frames, record))
    with computing_is_forbidden():  # type: ignore[attr-defined]
        lazy = [xs.apply(frames.chunk(event=n), record) for n in (1, 3)]
    for found in lazy:
        xr.testing.assert_identical(xs.flatten(found.compute()).drop_attrs(), whole.drop_attrs())
    assert int(whole["n_photons"].sum()) == whole.sizes["photon"] > 100


def test_valid_pixels_are_told_per_region_and_event(placed: xr.DataArray) -> None:
    mask = np.random.default_rng(0).random(placed.shape[1:]) > 0.1
    edges = [0.1, 0.15, 0.22]
    rings = {f"{a}": xs.Band("q", a, b) for a, b in itertools.pairwise(edges)}
    places = {**rings, "box": xs.Box(segment=1, row=(3, 20))}
    record = xs.droplet(4.0, 1.0, mask=mask) | xs.photon(9.5, regions=places, image=True, max_k=2)
    found = xs.apply(placed, record)
    assert found["roi"].values.tolist() == [*map(str, edges[:-1]), "box"]
    q = placed.sd.pixel("q").values
    held = [(q >= a) & (q < b) for a, b in itertools.pairwise(edges)]
    held.append(np.zeros(q.shape, bool))
    held[-1][1, 3:20] = True
    valid = np.isfinite(placed.values) & mask
    pictures = found["photons"].values
    np.testing.assert_array_equal(np.isfinite(pictures), valid)
    for g, region in enumerate(held):
        np.testing.assert_array_equal(found["n_valid"][:, g], (valid & region).sum(axis=(1, 2, 3)))
        for event in range(7):
            counts = np.bincount(pictures[event][valid[event] & region].astype(int), minlength=4)
            assert found["n_k"][event, g].values.tolist() == counts[:3].tolist()
            assert int(found["n_above"][event, g]) == counts[3:].sum()
    assert int(found["n_valid"][2, 2]) == 0  # a missing segment: no pixel, not no photon
    image = found["photons"].assign_attrs(units="photon").sd.roi(xs.Box(segment=1, row=(3, 20)))
    np.testing.assert_array_equal(
        image["sum"][:, 0].fillna(0), (found["n_k"][:, 2] * [0, 1, 2]).sum("k") + 3 * found["n_above"][:, 2]
    )


def test_order_of_rows_and_labels_change_nothing(placed: xr.DataArray) -> None:
    record = xs.droplet(4.0, 1.0) | xs.photon(image=True)
    whole = xs.apply(placed, record)
    listed = xs.droplet(4.0, 1.0) | xs.photon(also=["x", "q"])
    turned = xs.apply(placed.isel(row=slice(None, None, -1), column=slice(None, None, -1)), record)
    np.testing.assert_array_equal(turned["photons"].values[..., ::-1, ::-1], whole["photons"].values)
    turned, whole = (xs.flatten(xs.apply(f, listed)) for f in (placed.isel(row=slice(None, None, -1)), placed))
    xr.testing.assert_equal(turned["row"], whole["row"])
    flat = xs.flatten(xs.apply(placed.isel(row=slice(5, 30)), listed))
    assert flat["row"].min() >= 4.5
    assert flat["row"].max() < 29.5
    np.testing.assert_allclose(flat["x"], -3e-3 + 75e-6 * flat["column"], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("turn", [{"row": slice(None, None, -1)}, {"column": [5, 2, 3, 4, *range(6, 70), 0, 1]}])
def test_bare_masks_noise_and_regions_go_in_the_order_of_the_frames(placed: xr.DataArray, turn: dict) -> None:  # type: ignore[type-arg]
    rng = np.random.default_rng(5)
    shape, dims = placed.shape[1:], placed.dims[1:]
    mask, noise = rng.random(shape) > 0.2, rng.uniform(0.5, 2.0, shape)
    region = np.zeros(shape, bool)
    region[0, 3:20, 10:50] = True
    turned = placed.isel(turn)
    labelled = [xr.DataArray(v, {d: placed[d] for d in dims}, dims) for v in (mask, noise, region)]
    bare = [v.isel(turn).values for v in labelled]

    def found(frames: xr.DataArray, mask: object, noise: object, region: object) -> xr.Dataset:
        first = xs.droplet(xs.sigma(4), xs.sigma(1.5), noise=noise, mask=mask)
        counted = xs.apply(frames, first | xs.photon(9.5, regions={"a": region}))
        return xs.flatten(counted.merge(xs.apply(frames, first)[["n_pixels"]]))

    xr.testing.assert_equal(found(turned, *bare), found(placed, *labelled))
    xr.testing.assert_equal(found(turned, *bare), found(turned, *labelled))


def test_each_event_has_its_own_value_of_a_photon(placed: xr.DataArray) -> None:
    energies = xr.DataArray([9500.0, 9500.0, 9500.0, 9500.0, 4750.0, 4750.0, np.nan], dims="event")
    own = placed.sd.assign_beam(photon_energy=energies, distance=0.1)
    found = xs.apply(own, xs.droplet(4.0, 1.0) | xs.photon())
    one = xs.apply(placed, xs.droplet(4.0, 1.0) | xs.photon())
    assert found["n_photons"][:4].values.tolist() == one["n_photons"][:4].values.tolist()
    half = xs.apply(placed, xs.droplet(4.0, 1.0) | xs.photon(4.75))
    assert found["n_photons"][4:6].values.tolist() == half["n_photons"][4:6].values.tolist()
    assert found["n_valid"].values[6] == found["n_photons"].values[6] == 0  # nothing is known, not that there are none


def test_noise_of_each_pixel_says_what_is_a_droplet(frames: xr.DataArray) -> None:
    noise = np.full(frames.shape[1:], 0.8)
    noise[0, 3:9] = np.nan
    found = xs.apply(frames, xs.droplet(xs.sigma(5), xs.sigma(2), noise=noise) | xs.photon(9.0))
    plain = xs.apply(
        frames.where(xr.DataArray(np.isfinite(noise), dims=frames.dims[1:])), xs.droplet(4.0, 1.6) | xs.photon(9.0)
    )
    xr.testing.assert_equal(xs.flatten(found), xs.flatten(plain))


def test_droplets_with_less_than_half_a_photon_are_told(frames: xr.DataArray) -> None:
    found = xs.apply(frames, xs.droplet(0.65) | xs.photon(9.0))
    drops = xs.flatten(frames.sd.droplet(0.65))
    faint = (drops["sum"] < 4.5).groupby("droplet_event").sum()
    assert found["n_droplets"].values.tolist() == frames.sd.droplet(0.65)["n_droplets"].values.tolist()
    assert found["n_below"].values.tolist() == faint.values.tolist()
    assert int(found["n_below"].sum()) > 100
    cut = xs.apply(frames, xs.droplet(0.65, sums=(4.5, 30.0)) | xs.photon(9.0))
    assert not cut["n_below"].any()


def test_lists_are_saved_opened_and_joined(frames: xr.DataArray, tmp_path: Path) -> None:
    found = xs.apply(frames.chunk(event=3), CHAIN["greedy"])
    xs.save(found, tmp_path / "photons.h5")
    xs.save(found, tmp_path / "photons.zarr")
    for name in ("photons.h5", "photons.zarr"):
        again = xs.lists(xr.open_dataset(tmp_path / name, **({"engine": "zarr"} if name.endswith("zarr") else {})))
        xr.testing.assert_equal(xs.flatten(again)["row"], xs.flatten(found)["row"])
        halves = [again.isel(event=slice(0, 3)), again.isel(event=slice(3, 7))]
        twice = xs.flatten(xr.concat(halves, "event", data_vars="minimal", coords="minimal", compat="override"))
        assert twice["n_photons"].values.tolist() == found["n_photons"].values.tolist()
    spectrum = xs.apply(frames, CHAIN["greedy"] | xs.histogram("row", 40, range=(-0.5, 39.5)))
    assert int(spectrum["histogram"].sum()) == int(found["n_photons"].sum())


def test_simulated_photons_are_counted() -> None:
    sim = xs.simulate(4, shape=(2, 64, 128), seed=3)
    cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    energy = sim.photons(0).attrs["photon_energy"] / 1e3
    found = xs.flatten(
        xs.apply(cal, xs.droplet(0.5 * energy, 0.2 * energy, sums=(0.7 * energy, 1.3 * energy)) | xs.photon(energy))
    )
    event = found["photon_event"] == found["event"][0]
    got = np.stack([found[name].values[event] for name in ("row", "column")], axis=1)
    truth = sim.photons(0)
    near = []
    for segment in range(2):
        mine = got[found["segment"].values[event] == segment]
        places = np.stack([truth["row"], truth["column"]], axis=1)[truth["segment"] == segment] - 0.5
        near.append(np.sqrt(((mine[:, None] - places[None]) ** 2).sum(-1)).min(axis=1))
    assert np.median(np.concatenate(near)) < 0.35


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda f: f.sd.photon(0.0), ParameterError, "invalid per_photon"),
        (lambda f: f.sd.photon(True), ParameterError, "invalid per_photon"),
        (lambda f: f.sd.photon(float("nan")), ParameterError, "invalid per_photon"),
        (lambda f: f.sd.photon(), ParameterError, r"xs\.photon\(9\.5\)"),
        (lambda f: f.sd.photon(9.0, method="best"), ParameterError, "invalid method"),
        (lambda f: f.sd.photon(9.0, thr_fraction=-1), ParameterError, "invalid thr_fraction"),
        (lambda f: f.sd.photon(9.0, cloud=0), ParameterError, "invalid cloud"),
        (lambda f: f.sd.photon(9.0, max_k=0), ParameterError, "invalid max_k"),
        (lambda f: f.sd.photon(9.0, also="z2"), ParameterError, "invalid also"),
        (lambda f: f.sd.photon(9.0, also="x"), GeometryError, "assign_geometry"),
        (lambda f: f.sd.photon(9.0, regions=xs.Box(segment=0)), ParameterError, "regions need names"),
        (lambda f: f.sd.photon(9.0, regions={"a": xs.Box(segment=5)}), ParameterError, "segment"),
        (lambda f: f.assign_coords(row=range(40)).isel(row=[0, 2]).sd.photon(9.0), DataError, "without gaps"),
        (lambda f: xs.droplet(4.0) | xs.photon(9.0, mask=np.ones((2, 40, 70), bool)), ParameterError, "mask"),
        (lambda f: xs.droplet(4.0, max_droplets=9) | xs.photon(9.0), ParameterError, "need all droplets"),
        (lambda f: xs.droplet(4.0, also="max") | xs.photon(9.0), ParameterError, "properties of droplets"),
        (lambda f: xs.projection("row") | xs.photon(9.0), ParameterError, "cannot follow"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    frames: xr.DataArray, make: Callable[[xr.DataArray], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        make(frames)


def test_a_large_picture_is_told_and_no_events_are_no_trouble(frames: xr.DataArray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frames.sd.photon(9.0, image=True)
    big = xr.DataArray(np.zeros((1, 1, 600, 600), np.float32), dims=frames.dims, attrs={"units": "keV"})
    with pytest.warns(UserWarning, match="keeps 1.37 MiB"):
        big.sd.photon(9.0, image=True)
    for record in EVERY.values():
        assert xs.apply(frames.isel(event=slice(0, 0)), record)["n_k"].shape == (0, 11)
    one = xr.DataArray(np.full((1, 1, 30, 30), 1e4, np.float32), dims=frames.dims, attrs={"units": "keV"})
    full = xs.apply(one, xs.droplet(5.0) | xs.photon(10.0))
    assert int(full["n_photons"][0]) == 900_000
    assert int(full["n_above"][0]) == 900


def test_a_photon_that_none_has_in_the_unit_of_the_data_is_refused() -> None:
    frames = xr.DataArray(np.ones((2, 1, 4, 4)), dims=("event", "segment", "row", "column"), attrs={"units": "keV"})
    for data, value, fix in (
        (frames, 9500, "9.5"),
        (frames, 0.0095, "9.5"),
        (frames.assign_attrs(units="photon"), 9.5, "takes 1"),
    ):
        for record in (xs.photon(value), xs.droplet(0.5, 0.25) | xs.photon(value)):
            with pytest.raises(ParameterError, match=rf"no photon has this value in the unit(.*\n)*.*{fix}"):
                xs.apply(data, record)
    assert int(xs.apply(frames.assign_attrs(units="ADU"), xs.photon(9500))["n_photons"].sum()) == 0
    assert int(xs.apply(frames.assign_attrs(units="photon"), xs.photon())["n_photons"].sum()) == 32  # as the error says
