"""Mistakes that programs for droplets, photons and correlations are known to make, and that are not made here."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, XsmallError

DIMS = ("event", "segment", "row", "column")


def frames_of(values: np.ndarray, units: str = "keV") -> xr.DataArray:
    times = np.arange(len(values)).astype("M8[s]").astype("M8[ns]")
    return xr.DataArray(values.astype(np.float32), {"event": times}, DIMS, attrs={"units": units})


@pytest.fixture
def one_each() -> xr.DataArray:
    """Two segments with a photon at the same place; an event without one; one of three photons on two pixels."""
    values = np.zeros((3, 2, 8, 8))
    values[0, :, 3, 4] = 10.0
    values[2, 1, 5, 5], values[2, 1, 5, 6] = 16.0, 14.0
    return frames_of(values)


# ---- droplets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "grow"), [(None, "ring"), (2.0, "ring"), (2.0, "flood")])
@pytest.mark.parametrize("neighbours", [4, 8])
def test_all_options_of_droplets_work_together(
    one_each: xr.DataArray, low: float | None, grow: str, neighbours: int
) -> None:
    found = xs.apply(one_each, xs.droplet(4.0, low, grow=grow, neighbours=neighbours))  # type: ignore[arg-type]
    assert found["n_droplets"].values.tolist() == [2, 0, 1]


def test_droplets_at_masked_pixels_and_edges_say_so() -> None:
    values = np.zeros((1, 1, 9, 9))
    values[0, 0, [0, 4, 4], [3, 4, 7]] = 10.0
    mask = np.ones((1, 9, 9), bool)
    mask[0, 4, 6] = False
    found = frames_of(values).sd.droplet(4.0, mask=mask, also="touches")
    assert found["touches"].values[0].tolist() == [True, False, True]
    assert found["row"].values[0].tolist() == [0, 4, 4]


def test_an_event_without_droplets_has_empty_lists_and_the_segment_is_a_whole_number(one_each: xr.DataArray) -> None:
    found = one_each.sd.droplet(4.0)
    assert [v.size for v in found["sum"].values] == [2, 0, 1]
    assert [v.dtype for v in found["segment"].values] == [np.int32] * 3
    assert found["segment"].values[0].tolist() == [0, 1]


@pytest.mark.parametrize("detector_type", ["epix100", "jungfrau"])
def test_noise_of_constants_is_in_the_unit_of_the_data_whatever_the_detector(detector_type: str) -> None:
    stages = 3 if detector_type == "jungfrau" else 1
    shape = (stages, 1, 8, 8)
    dims = ("gain_stage", "segment", "row", "column")
    made = {
        "pedestal": (dims, np.full(shape, 1000.0)), "noise": (dims, np.full(shape, 8.0)),
        "gain": (dims, np.full(shape, 16.0)),
    }  # fmt: skip
    made["gain"][1][1:] *= -0.02  # of the first stage it is taken
    constants = xr.Dataset(made, {"gain_stage": np.arange(stages)}, {"detector_type": detector_type})
    values = np.zeros((1, 1, 8, 8))
    values[0, 0, [1, 4], [1, 4]] = [2.4, 2.6]  # 8 ADU of noise are 0.5 keV: five of them 2.5 keV
    found = frames_of(values).sd.droplet(xs.sigma(5), noise=constants)
    assert found["row"].values[0].tolist() == [4]


# ---- photons --------------------------------------------------------------------------------------------------------


def test_the_same_place_on_two_segments_is_two_pixels(one_each: xr.DataArray) -> None:
    found = xs.apply(one_each, xs.droplet(4.0) | xs.photon(10.0))
    assert found["n_k"][0, :3].values.tolist() == [126, 2, 0]
    assert found["segment"].values[0].tolist() == [0, 1]


def test_an_event_without_photons_has_every_pixel_at_zero(one_each: xr.DataArray) -> None:
    found = xs.apply(one_each, xs.droplet(4.0) | xs.photon(10.0))
    assert found["n_k"][1].values.tolist() == [128, *[0] * 10]
    assert (found["n_k"].sum("k") + found["n_above"] == found["n_valid"]).all()


def test_pixels_with_more_photons_than_told_are_counted() -> None:
    values = np.zeros((1, 1, 8, 8))
    values[0, 0, 2, 2] = 120.0
    found = xs.apply(frames_of(values), xs.droplet(4.0) | xs.photon(10.0))
    assert int(found["n_above"][0]) == 1
    assert int(found["n_k"][0].sum()) == 63
    assert int(found["n_photons"][0]) == 12


def test_counts_lists_pictures_and_entries_have_each_photon_in_the_same_pixel() -> None:
    values = np.random.default_rng(1).gamma(0.2, 8.0, (4, 2, 20, 20))
    frames, first = frames_of(values), xs.droplet(5.0, 2.0)
    listed, shown, kept = (
        xs.apply(frames, first | xs.photon(10.0, **how)) for how in ({}, {"image": True}, {"sparse": True})
    )
    for event in range(4):
        at = [np.floor(listed[name].values[event] + 0.5).astype(int) for name in ("segment", "row", "column")]
        picture = np.zeros(values.shape[1:])
        np.add.at(picture, tuple(at), 1)
        np.testing.assert_array_equal(shown["photons"][event], picture)
        assert (
            np.bincount(picture.astype(int).ravel(), minlength=11)[:11].tolist() == listed["n_k"][event].values.tolist()
        )
    np.testing.assert_array_equal(xs.dense(kept).values, shown["photons"].values)


def test_whole_photons_of_pixels_never_exceed_those_of_their_droplet() -> None:
    values = np.zeros((1, 1, 8, 8))
    values[0, 0, 3, 2:6] = [19.0, 19.0, 19.0, -30.0]  # three times one whole photon, but a sum of 2.7
    found = xs.apply(frames_of(values), xs.droplet(4.0, 1.0) | xs.photon(10.0))
    assert int(found["n_photons"][0]) == 6  # the negative pixel is no member
    found = xs.apply(frames_of(np.abs(values)), xs.droplet(4.0, 1.0, sums=(0, 90)) | xs.photon(10.0))
    assert found["row"].values[0].size == int(found["n_photons"][0]) == 9
    values[0, 0, 3, 2:6] = [14.0, 14.0, 14.0, 0.0]  # 4.2 photons, which are 6 where each pixel rounds up
    found = xs.apply(frames_of(values), xs.droplet(4.0, 1.0) | xs.photon(10.0))
    assert found["row"].values[0].size == int(found["n_photons"][0]) == int(found["n_k"][0].values @ np.arange(11)) == 4


BRIGHT = {
    "droplets": lambda **how: xs.droplet(4.0, 1.0) | xs.photon(10.0, **how),
    "in sigma": lambda **how: xs.droplet(xs.sigma(4), xs.sigma(2), noise=np.ones((2, 32, 40))) | xs.photon(10, **how),
    "pairs": lambda **how: xs.photon(10.0, **how),
}


@pytest.mark.parametrize("record", BRIGHT.values(), ids=BRIGHT)
def test_values_that_are_no_light_are_not_hidden_by_others_below_zero(record: Callable[..., xs.Record]) -> None:
    values = np.zeros((3, 2, 32, 40))
    values[:, 0, 3, 4] = 10.0
    values[1, 0, 9, 9], values[1, 0, 20, 20] = 6e7, -6e7  # six million photons
    found = xs.apply(frames_of(values), record())
    assert found["n_photons"].values.tolist() == [1, 1, 1]
    assert found["n_valid"].values.tolist() == [2560, 2559, 2560]


@pytest.mark.parametrize(
    "record",
    [
        BRIGHT["in sigma"](also=[]),
        xs.droplet(4.0, 1.0) | xs.photon(),
        xs.photon(thr_fraction=0.8),
        xs.droplet(4.0, 1.0),
    ],
    ids=["in sigma", "energies", "pairs", "droplets"],
)
def test_what_is_found_does_not_depend_on_how_many_events_go_together(record: xs.Record) -> None:
    rng = np.random.default_rng(9)
    values = 10.0 * rng.poisson(0.1, (70, 2, 32, 40)) + rng.normal(0, 0.3, (70, 2, 32, 40))
    values[5, 1, 2, 2] = values[66, 0, 7, 7] = np.nan
    values[20, 0, 4, 4], values[21, 0], values[22, 0, 5, 6] = 1e9, np.inf, 3e6
    energies = xr.DataArray(np.where(np.arange(70) == 30, np.nan, 1e4 + 10.0 * np.arange(70)), dims="event")
    frames = frames_of(values).sd.assign_beam(photon_energy=energies)
    whole = xs.flatten(xs.apply(frames, record))
    apart = [xs.apply(frames[i : i + n], record) for i, n in ((0, 1), (1, 35), (36, 1), (37, 33))]
    for name, found in xs.flatten(xs.concat(apart)).data_vars.items():
        np.testing.assert_array_equal(whole[name], found, err_msg=str(name))


@pytest.mark.parametrize("record", BRIGHT.values(), ids=BRIGHT)
def test_values_that_are_no_light_cost_nothing_and_are_told(record: Callable[..., xs.Record]) -> None:
    counts = np.random.default_rng(7).poisson(0.05, (6, 2, 32, 40))
    values = 10.0 * counts
    values[0, 0] = 1e6  # 10^8 photons, a gigabyte and more of places
    values[1, 0, 3, 3], values[2, 0, 3, 3] = np.inf, 3e38
    values[3, 1, 4, 4:7] = 1e9
    values[4, 0, 2, 2] = 1.6e6  # a direct beam is
    counts[4, 0, 2, 2] = 160_000
    good = np.ones(values.shape, bool)
    good[0, 0] = good[1, 0, 3, 3] = good[2, 0, 3, 3] = False
    good[3, 1, 4, 4:7] = False
    found = xs.apply(frames_of(values), record())
    for j in range(6):
        assert int(found["n_photons"][j]) == len(found["row"].values[j])
    together = xs.dense(xs.apply(frames_of(values), record(sparse=True)))
    assert not np.isfinite(together.values[~good]).any()
    kept = np.isfinite(together.values)
    assert (~kept & good).sum() < 12  # neighbours that were in the droplet of what is no light
    assert found["n_valid"].values.tolist() == kept.sum(axis=(1, 2, 3)).tolist()
    np.testing.assert_array_equal(together.values[kept], counts[kept])
    assert found["n_photons"].values.tolist() == np.where(kept, counts, 0).sum(axis=(1, 2, 3)).tolist()
    assert (found["n_k"].sum("k") + found["n_above"] == found["n_valid"]).all()


def test_a_record_of_photons_is_small() -> None:
    assert len(pickle.dumps(xs.droplet(4.0, 1.0) | xs.photon(10.0))) < 5000


def test_masked_pixels_count_nowhere(one_each: xr.DataArray) -> None:
    mask = np.ones((2, 8, 8), bool)
    mask[1, 3, 4] = False
    for record in (xs.droplet(4.0, mask=mask) | xs.photon(10.0), xs.photon(10.0, mask=mask)):
        found = xs.apply(one_each, record)
        assert found["n_photons"].values.tolist()[0] == 1
        assert (found["n_valid"] == 127).all()


def test_a_choice_of_mean_counts_is_what_is_fitted() -> None:
    rng = np.random.default_rng(2)
    means = np.repeat([0.02, 0.3], 100)[:, None]
    counts = rng.poisson(rng.gamma(2.0, means / 2, (200, 3000)))
    n_k = np.stack([(counts == k).sum(axis=1) for k in range(9)], axis=1)
    small = xr.Dataset({"n_k": (("event", "k"), n_k), "n_above": ("event", (counts > 8).sum(axis=1))})
    binned = xs.contrast(small, mean_bins=[0, 0.1, 1])
    for i, part in enumerate((slice(0, 100), slice(100, 200))):
        alone = xs.contrast(small.isel(event=part))
        assert float(binned["contrast"][i]) == float(alone["contrast"])
        assert float(binned["contrast_stderr"][i]) == float(alone["contrast_stderr"]) > 0


def test_one_photon_shared_by_two_pixels_is_one_by_the_rule_of_pairs() -> None:
    values = np.zeros((1, 1, 6, 6))
    values[0, 0, 2, 2:4] = [5.5, 4.0]
    values[0, 0, 4, 1] = 8.5
    found = frames_of(values).sd.photon(10.0, thr_fraction=0.9)
    assert int(found["n_photons"][0]) == 1
    assert found["column"].values[0].tolist() == [2]
    values[0, 0, 2, 2:4] = [4.6, 4.8]  # either one alone would do
    found = frames_of(values).sd.photon(10.0, thr_fraction=0.9)
    assert found["column"].values[0].tolist() == [3]


def test_frames_are_left_as_they_are() -> None:
    values = frames_of(np.random.default_rng(3).gamma(0.5, 5.0, (3, 1, 20, 20)))
    before = values.copy(deep=True)
    records = {
        "d": xs.droplet(4.0, 1.0), "p": xs.photon(9.5), "f": xs.droplet(4.0, 1.0) | xs.photon(9.5, method="fit"),
        "a": xs.autocorrelation(max_lag=4, illumination=np.ones((1, 20, 20))), "s": xs.sparse(),
    }  # fmt: skip
    values.sd.reduce(records)
    xr.testing.assert_identical(values, before)


def test_lists_are_no_frames_and_the_error_says_what_is(one_each: xr.DataArray) -> None:
    record = xs.droplet(4.0, 1.0)
    for lists in (one_each.sd.droplet(4.0), xs.apply(one_each, record | xs.photon(10.0))):
        for reduce in (lambda v: v.sd.roi(xs.Box(segment=0)), lambda v: xs.apply(v, xs.azint(bins=4))):
            with pytest.raises(DataError, match="sparse=True"):
                reduce(lists)
    kept = xs.apply(one_each, record | xs.photon(10.0, sparse=True))
    assert kept.sd.roi(xs.Box(segment=1))["sum"].values.ravel().tolist() == [1, 0, 3]
    with pytest.raises(XsmallError, match="like"):
        kept.sd.roi(xs.Box(segment=1), like=one_each)


# ---- sparse frames --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".zarr", ".h5"])
def test_sparse_frames_keep_every_pixel_their_type_and_empty_events(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(4)
    counts = rng.poisson(0.3, (5, 2, 20, 20)).astype(float)
    counts[1] = 0
    counts[2] = 0
    counts[2, 0, 0, 0] = 3  # the first pixel is a pixel, no padding
    kept = frames_of(counts, "photon").sd.photon(sparse=True)
    assert {v.dtype for v in kept["pixel_value"].values} == {np.dtype("i4")}
    path = kept.sd.save(tmp_path / f"kept{ending}")
    with xr.open_dataset(path, engine="zarr" if ending == ".zarr" else "netcdf4") as flat:
        again = xs.lists(flat).load()
    np.testing.assert_array_equal(xs.dense(again).values, counts)
    assert again["pixel"].values[2].tolist() == [0]
    assert again["pixel_value"].dtype == object
    assert {v.dtype for v in again["pixel_value"].values} == {np.dtype("i4")}


def test_padding_is_no_pixel(one_each: xr.DataArray) -> None:
    with pytest.warns(UserWarning, match="max_droplets=1"):
        found = one_each.sd.droplet(4.0, max_droplets=1)
    assert found["is_cut"].values.tolist() == [True, False, False]
    assert np.isnan(found["row"][1, 0])
    assert int(found["segment"][1, 0]) == -1
    assert {found[name].dtype.kind for name in ("row", "column", "sum")} == {"f"}


# ---- autocorrelation ------------------------------------------------------------------------------------------------


def test_no_mask_an_odd_width_and_a_peak_where_it_is() -> None:
    rng = np.random.default_rng(5)
    base = rng.random((1, 1, 21, 25))
    values = base + np.roll(base, (3, 4), axis=(2, 3))
    found = frames_of(values).sd.autocorrelation(max_lag=(8, 9), also=["radial", "along_row", "along_column"])
    c = found["autocorrelation"][0]
    assert c.shape == (17, 19)
    assert abs(c.where((abs(c.lag_row) + abs(c.lag_column)) > 0).stack(at=c.dims).idxmax().item()[0]) == 3
    np.testing.assert_array_equal(found["along_row"][0], c.sel(lag_column=0))
    np.testing.assert_array_equal(found["along_column"][0], c.sel(lag_row=0))
    assert found["radial"].sel(lag=0).item() == c.sel(lag_row=0, lag_column=0).item()


def test_nothing_wraps_around() -> None:
    values = np.zeros((1, 1, 16, 16))
    values[0, 0, 0, 0], values[0, 0, 15, 15] = 1.0, 1.0  # neighbours only on a torus
    values[0, 0, 8, 8] = 1.0
    c = frames_of(values).sd.autocorrelation(max_lag=2)["autocorrelation"][0]
    assert abs(c.sel(lag_row=1, lag_column=1).item()) < 1e-12


def test_the_corrected_light_is_what_is_correlated_and_each_place_has_its_middle() -> None:
    rng = np.random.default_rng(6)
    light = 1 + np.arange(40.0) / 10 * np.ones((1, 30, 40))
    frames = frames_of(rng.gamma(4.0, 0.25, (6, 1, 30, 40)) * light)
    places = {"left": xs.Box(column=(0, 15)), "right": xs.Box(column=(15, 40))}
    found = frames.sd.autocorrelation(places, max_lag=3, illumination=light, also="along_column")
    alone = (frames / light[None]).astype(np.float32).sd.autocorrelation(places, max_lag=3)
    np.testing.assert_allclose(found["autocorrelation"], alone["autocorrelation"], rtol=1e-5)
    assert found["along_column"].argmax("lag_column").values.tolist() == [[3, 3]] * 6


def test_pixels_without_light_are_not_used_and_no_light_at_all_is_told() -> None:
    frames = frames_of(np.random.default_rng(8).gamma(4.0, 0.25, (2, 1, 20, 30)))
    light = np.ones((1, 20, 30))
    light[0, :, 20:], light[0, :4] = -0.1, 0.0
    found = frames.sd.autocorrelation(max_lag=3, illumination=light)
    expected = frames.sd.autocorrelation(max_lag=3, mask=light > 0)
    xr.testing.assert_allclose(found.drop_attrs(), expected.drop_attrs())
    with pytest.raises(XsmallError, match="illumination is positive"):
        frames.sd.autocorrelation(max_lag=3, illumination=0 * light)
