"""``g2`` and ``two_time``: beside a twin, beside scikit-beam, and for decays that are known."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.errors import DataError, ParameterError, PlanError
from xsmall.kernels.g2 import pair_sums, sort_by_pixel
from xsmall.kernels.reference import g2 as twin

DIMS = ("event", "segment", "row", "column")
PERIOD = 1e-3


def frames_of(values: npt.NDArray[np.float64], steps: npt.NDArray[np.int64] | None = None) -> xr.DataArray:
    """Frames of one segment, a millisecond apart, or at these multiples of it."""
    steps = np.arange(len(values)) if steps is None else steps
    times = np.datetime64("2026-01-01T00:00:00", "ns") + steps * np.timedelta64(1_000_000, "ns")
    return xr.DataArray(values[:, None], {"event": times}, DIMS, attrs={"units": "photon"})


def decaying(
    rng: np.random.Generator, steps: npt.NDArray[np.int64], shape: tuple[int, int], tau: float
) -> npt.NDArray[np.float64]:
    """Light of mean 1 whose field loses its memory: g2 = 1 + exp(-2 lag / tau), lags in steps."""
    field = rng.normal(size=(2, *shape))
    out = []
    for gap in np.diff(steps, prepend=steps[0]):
        keep = np.exp(-gap / tau)
        field = keep * field + np.sqrt(1 - keep**2) * rng.normal(size=field.shape)
        out.append((field**2).sum(axis=0) / 2)
    return np.array(out)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.floats(0.05, 1.0))
def test_sums_over_pairs_equal_the_twin(seed: int, n: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    values = rng.poisson(1.0, (n, 6)) * (rng.random((n, 6)) < density) * 1.0
    times = np.cumsum(rng.integers(1, 5, n))
    edges = np.unique(rng.integers(1, 4 * n, 6))
    if edges.size < 2:
        edges = np.array([1, 4 * n])
    pixel, event = np.nonzero(values.T)
    begin = np.searchsorted(pixel, np.arange(7))
    blocks = rng.integers(-1, 2, (2, 6)).astype(np.int16)
    out, kept = np.zeros((2, 2, edges.size - 1)), rng.random(n) < 0.8
    pair_sums(begin, event.astype(np.int32), values.T[pixel, event], times, kept, edges, blocks, out)
    expected = twin.pair_sums(values[kept], times[kept], edges)
    for g in range(2):
        for b in range(2):
            np.testing.assert_allclose(out[g, b], expected[blocks[g] == b].sum(axis=0), atol=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.booleans())
def test_entries_are_sorted_by_pixel_and_time(seed: int, n: int, twice: bool) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    pixel = [rng.choice(7, int(rng.integers(0, 7)), replace=twice) for _ in range(n)]
    value = [rng.integers(1, 5, p.size) for p in pixel]
    dense, ones = np.zeros((n, 7)), np.zeros((n, 7))
    for j in range(n):
        np.add.at(dense[j], pixel[j], value[j])
        np.add.at(ones[j], pixel[j], 1)
    stops = np.cumsum([0, *(p.size for p in pixel)])
    flat, values = (np.concatenate([np.empty(0, np.int64), *v]) for v in (pixel, value))
    for given_, expected in ((values, dense), (None, ones)):
        begin, event, weights = np.zeros(8, np.int64), np.empty(flat.size, np.int32), np.empty(flat.size)
        found = sort_by_pixel(flat, given_, stops, order, begin, event, weights)
        at, when = np.nonzero(expected[order].T)
        np.testing.assert_array_equal(begin, np.searchsorted(at, np.arange(8)))
        np.testing.assert_array_equal(event[:found], when)
        np.testing.assert_array_equal(weights[:found], expected[order].T[at, when])


def test_lists_of_photons_give_what_frames_give(computing_is_forbidden: Callable[[], object]) -> None:
    rng = np.random.default_rng(1)
    frames = frames_of(rng.poisson(0.1, (60, 20, 30)).astype(np.float32))
    photons = frames.sd.photon()
    regions = {"left": xs.Box(column=(0, 17)), "all": np.ones((1, 20, 30), bool)}
    dense = xs.g2(frames, regions)
    sparse = xs.g2(photons, regions, like=frames)
    xr.testing.assert_allclose(dense.drop_attrs(), sparse.drop_attrs())
    with computing_is_forbidden():  # type: ignore[attr-defined]
        lazy = xs.g2(frames.chunk(event=7).sd.photon(), regions, like=frames.chunk(event=7))
        matrix = xs.two_time(frames.chunk(event=7), regions)
    xr.testing.assert_identical(lazy.compute().drop_attrs(), sparse.drop_attrs())
    xr.testing.assert_allclose(matrix.compute().drop_attrs(), xs.two_time(photons, regions, like=frames).drop_attrs())
    assert dense["n_events"].values.tolist() == [60, 60]
    assert dense["n_pairs"][0, 0] == 59
    turned = frames.isel(event=rng.permutation(60))
    xr.testing.assert_allclose(xs.g2(turned, regions).drop_attrs(), dense.drop_attrs())


def test_two_times_are_the_products_of_each_two_events() -> None:
    rng = np.random.default_rng(2)
    values = rng.random((6, 5, 7))
    found = xs.two_time(frames_of(values), {"a": xs.Box(row=(1, 4))})["two_time"][0]
    held = values[:, 1:4].reshape(6, -1)
    expected = (held @ held.T) / held.shape[1] / np.outer(held.mean(axis=1), held.mean(axis=1))
    np.fill_diagonal(expected, np.nan)
    np.testing.assert_allclose(found, expected)
    assert found.dims == ("event", "other_event")


@pytest.mark.parametrize("mean", [0.02, 0.5])
def test_a_known_decay_is_recovered_with_dropped_shots_and_jumping_pulses(mean: float) -> None:
    rng = np.random.default_rng(3)
    steps = np.flatnonzero(rng.random(500) < 0.7)
    light = decaying(rng, steps, (60, 60), 40.0) * rng.gamma(4.0, 0.25, (steps.size, 1, 1)) * mean
    frames = frames_of(rng.poisson(light).astype(np.float32), steps)
    found = xs.g2(frames.sd.photon(), {"all": xs.Box()}, like=frames, lags=np.arange(0.5, 60.5) * PERIOD)
    expected = 1 + np.exp(-2 * found["tau"] / (40.0 * PERIOD))
    pulls = (found["g2"][0] - expected) / found["g2_stderr"][0]
    assert abs(pulls).max() < 5
    assert 0.5 < float(np.sqrt((pulls**2).mean())) < 1.6
    assert float(found["g2_stderr"].max()) < (0.5 if mean < 0.1 else 0.1)
    assert int(found["n_pairs"][0, 0]) == int((np.diff(steps) == 1).sum())


def test_errors_have_unit_pulls() -> None:
    rng = np.random.default_rng(4)
    pulls = []
    for _ in range(40):
        frames = frames_of(rng.poisson(decaying(rng, np.arange(40), (24, 24), 8.0)).astype(np.float32))
        found = xs.g2(frames, {"all": xs.Box()}, lags=[0.0005, 0.0015, 0.0025])
        truth = 1 + np.exp(-2 * np.array([1, 2]) / 8.0)
        pulls.append(((found["g2"][0] - truth) / found["g2_stderr"][0]).values)
    assert 0.7 < np.std(pulls) < 1.35
    assert abs(np.mean(pulls)) < 0.6


def test_the_same_comes_from_scikit_beam() -> None:
    correlation = pytest.importorskip("skbeam.core.correlation")
    rng = np.random.default_rng(5)
    light = decaying(rng, np.arange(64), (30, 30), 10.0)
    light /= light.mean(axis=(1, 2), keepdims=True)  # there the mean is taken over time, here of each event
    labels = np.ones((30, 30), int)
    theirs, lags = correlation.multi_tau_auto_corr(1, 16, labels, light)[:2]
    ours = xs.g2(frames_of(light), {"all": xs.Box()})
    np.testing.assert_allclose(ours["tau"][:15], lags[1:16] * PERIOD, rtol=1e-9)
    np.testing.assert_allclose(ours["g2"][0, :15], theirs[1:16, 0], rtol=1e-6)
    matrix = xs.two_time(frames_of(light), {"all": xs.Box()})["two_time"][0]
    two = correlation.two_time_corr(labels, light, 64, 64, 1)[0][0]
    off = ~np.eye(64, dtype=bool) & (two != 0)
    np.testing.assert_allclose(matrix.values[off], two[off], rtol=1e-6)


def test_events_that_lack_pixels_are_left_out_of_their_regions() -> None:
    rng = np.random.default_rng(6)
    values = rng.random((20, 10, 12))
    values[3, 2, 2] = np.nan
    values[7] = np.nan
    regions = {"top": xs.Box(row=(0, 5)), "rest": xs.Box(row=(5, 10))}
    found = xs.g2(frames_of(values), regions)
    assert found["n_events"].values.tolist() == [18, 19]
    steps = np.delete(np.arange(20), [3, 7])
    clean = xs.g2(frames_of(values[steps], steps), regions, lags=np.append(found["tau_bounds"][:, 0], 0.0195))
    np.testing.assert_allclose(found["g2"][0, :3], clean["g2"][0, :3])
    mask = np.ones((1, 10, 12), bool)
    mask[0, 2, 2] = False
    assert xs.g2(frames_of(values), regions, mask=mask)["n_events"].values.tolist() == [19, 19]
    matrix = xs.two_time(frames_of(values), regions)["two_time"]
    assert np.isnan(matrix.sel(roi="top")[3]).all()
    assert int(np.isfinite(matrix.sel(roi="rest")[3]).sum()) == 18


def test_pixels_that_all_events_lack_are_masked_and_lists_that_cannot_know_them_say_so() -> None:
    rng = np.random.default_rng(7)
    values = rng.poisson(0.5, (40, 20, 30)).astype(np.float32)
    bad = rng.random((20, 30)) < 0.1
    values[:, bad] = np.nan
    values[11] = np.nan
    values[12, 3, 2:] = np.nan
    regions = {"top": xs.Box(row=(0, 9)), "all": xs.Box()}
    frames, mask = frames_of(values), ~bad[None]
    for correlate in (xs.g2, xs.two_time):
        expected = correlate(frames, regions, mask=mask).drop_attrs()
        xr.testing.assert_identical(correlate(frames, regions).drop_attrs(), expected)
        xr.testing.assert_identical(correlate(frames.sd.photon(sparse=True), regions).drop_attrs(), expected)
        lists = correlate(frames.sd.photon(), regions, like=frames, mask=mask).drop_attrs()
        counted = correlate(frames.sd.photon(regions=regions), regions, like=frames, mask=mask).drop_attrs()
        xr.testing.assert_allclose(counted, expected)
        xr.testing.assert_allclose(lists.sel(roi="all"), expected.sel(roi="all"))
        for photons in (frames.sd.photon(), frames.sd.photon(regions=regions)):
            with pytest.raises(DataError, match="fewer pixels than are correlated"):
                correlate(photons, regions, like=frames)
        with pytest.raises(DataError, match="other regions"):
            correlate(frames.sd.photon(regions={"top": regions["top"]}), regions, like=frames, mask=mask)
    assert xs.g2(frames, regions)["n_events"].values.tolist() == [38, 38]


def test_runs_without_a_pixel_give_nothing() -> None:
    frames = frames_of(np.full((5, 3, 4), np.nan, np.float32))
    for found in (
        xs.g2(frames, {"a": xs.Box()}),
        xs.g2(frames.sd.photon(), {"a": xs.Box()}, like=frames),
        xs.g2(frames.sd.photon(sparse=True), {"a": xs.Box()}),
    ):
        assert np.isnan(found["g2"]).all()


def test_no_event_has_no_pairs() -> None:
    assert xs.two_time(frames_of(np.ones((0, 3, 4))), {"a": xs.Box()})["two_time"].shape == (1, 0, 0)


def test_multi_tau_bins_follow_each_other_to_the_longest_lag() -> None:
    found = xs.g2(frames_of(np.ones((300, 2, 2))), {"all": xs.Box()})
    bounds = found["tau_bounds"].values
    np.testing.assert_array_equal(bounds[1:, 0], bounds[:-1, 1])
    assert bounds[-1, 1] > 0.299
    assert int(found["n_pairs"].sum()) == 300 * 299 // 2
    np.testing.assert_allclose(found["g2"], 1.0)
    assert found["tau"].attrs["units"] == "s"
    numbers = frames_of(np.ones((9, 2, 2))).assign_coords(event=np.arange(9) * 3)
    assert xs.g2(numbers, {"all": xs.Box()})["tau"].values[0] == pytest.approx(3.5)


@pytest.mark.parametrize("lags", [[0.5, 1.5, 2.5, 4.5], [0.1, 1.4, 2.4, 4.1], [1, 2, 3, 5]])
def test_each_lag_of_whole_numbers_is_in_the_bin_that_holds_it(lags: list[float]) -> None:
    counts = np.random.default_rng(4).poisson(1.0, (10, 1, 5, 6)).astype("f4")
    frames = xr.DataArray(counts, {"event": np.arange(10)}, ("event", "segment", "row", "column"))
    found = xs.g2(frames, {"all": xs.Box()}, lags=lags)
    flat = counts.reshape(10, -1)
    for i, of_bin in enumerate(([1], [2], [3, 4])):
        pairs = [(a, a + lag) for lag in of_bin for a in range(10 - lag)]
        products, norm = (sum(x(a, b) for a, b in pairs) for x in (
            lambda a, b: (flat[a] * flat[b]).sum(), lambda a, b: flat[a].sum() * flat[b].sum() / 30,
        ))  # fmt: skip
        assert float(found["n_pairs"][0, i]) == len(pairs)
        np.testing.assert_allclose(float(found["g2"][0, i]), products / norm)
    with pytest.raises(ParameterError, match="a whole number in each") as raised:
        xs.g2(frames, {"all": xs.Box()}, lags=[1.2, 1.4, 3])
    typed = eval(str(raised.value).split("do this:")[1].strip().removeprefix("lags="), {"np": np})
    assert xs.g2(frames, {"all": xs.Box()}, lags=typed)["g2"].sizes["tau"] == 9


def test_light_that_is_not_there_gives_nothing() -> None:
    found = xs.g2(frames_of(np.zeros((9, 3, 3))), {"all": xs.Box()})
    assert np.isnan(found["g2"]).all()
    assert np.isnan(found["g2_stderr"]).all()
    gap = xs.g2(frames_of(np.ones((4, 3, 3)), np.array([0, 1, 90, 91])), {"all": xs.Box()}, lags=[5e-4, 1.5e-3, 9e-3])
    assert gap["n_pairs"].values.tolist() == [[2, 0]]
    assert np.isnan(gap["g2"][0, 1])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda f: xs.g2(f, xs.Box()), ParameterError, "regions need names"),
        (lambda f: xs.g2(f[:1], {"a": xs.Box()}), DataError, "two events"),
        (lambda f: xs.g2(f, {"a": xs.Box()}, lags=[0.0, 1.0]), ParameterError, "invalid lags"),
        (lambda f: xs.g2(f, {"a": xs.Box()}, blocks=1), ParameterError, "invalid blocks"),
        (lambda f: xs.g2(f.sd.photon(), {"a": xs.Box()}), DataError, "like=cal"),
        (lambda f: xs.g2(f[:, 0], {"a": xs.Box()}), DataError, "neither frames nor lists"),
        (lambda f: xs.g2(f.drop_vars("event"), {"a": xs.Box()}), DataError, "labels"),
        (lambda f: xs.two_time(xr.concat([f, f], "event"), {"a": xs.Box()}), DataError, "twice|more than once|same"),
        (lambda f: xs.g2(f.sd.photon(), {"a": xs.Box()}, like=f[..., :2]), DataError, "beside the pixels"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(make: Callable[[xr.DataArray], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make(frames_of(np.ones((5, 3, 4), np.float32)))


def test_a_matrix_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xsmall.reductions.g2.MOST_BYTES", 100)
    with pytest.raises(PlanError, match="isel"):
        xs.two_time(frames_of(np.ones((5, 3, 4))), {"a": xs.Box()})


def test_the_kernel_lets_other_threads_run(lets_others_run: Callable[..., bool]) -> None:
    rng = np.random.default_rng(1)
    event = np.sort(rng.integers(0, 2000, (300, 60)), axis=1).astype(np.int32).ravel()
    begin, edges = np.arange(301) * 60, np.arange(1, 40)
    out, blocks = np.zeros((1, 1, 38)), np.zeros((1, 300), np.int16)
    kept = np.ones(2000, bool)
    weights = np.ones(event.size)
    assert lets_others_run(lambda: pair_sums(begin, event, weights, np.arange(2000), kept, edges, blocks, out))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_events_that_coordinates_flag_are_left_out_as_those_without_values_are(dtype: str) -> None:
    rng = np.random.default_rng(8)
    values = rng.poisson(1.0, (20, 8, 6)).astype(np.float32)
    regions = {"top": xs.Box(row=(0, 4)), "all": xs.Box()}
    present = np.ones((20, 1), bool)
    present[[4, 9]] = False
    expected_of = values.copy()
    expected_of[[4, 9]] = np.nan
    frames = frames_of(values).astype(dtype).assign_attrs(parameters="{}")  # as what xsmall computes has
    sparse = frames.astype("float32").sd.photon(sparse=True)
    for correlate in (xs.g2, xs.two_time):
        expected = correlate(frames_of(expected_of), regions).drop_attrs()
        for given_ in (frames, sparse):
            flagged = given_.assign_coords(present=(("event", "segment"), present))
            xr.testing.assert_allclose(correlate(flagged, regions).drop_attrs(), expected)


def test_segments_that_are_flagged_later_are_the_same_to_sparse_frames_as_to_frames() -> None:
    rng = np.random.default_rng(12)
    values = rng.poisson(0.5, (8, 3, 4, 6)).astype(np.float32)
    values[:, 1, 0, :2] = np.nan
    values[2, 0, 3, 4:], values[2, 1] = np.nan, np.nan  # a run of lost pixels from one segment into the next
    values[1:, 2, 2] = np.nan  # lost wherever its segment may be used below
    present = np.ones((8, 3), bool)
    present[0, 2] = present[[2, 5], 1] = present[6] = False
    times = np.datetime64("2026-01-01T00:00:00", "ns") + np.arange(8) * np.timedelta64(1_000_000, "ns")
    frames = xr.DataArray(values, {"event": times}, DIMS, attrs={"units": "photon", "parameters": "{}"})
    regions = {f"{s}": xs.Box(segment=s) for s in range(3)}
    regions |= {"all": np.ones((3, 4, 6), bool), "row": xs.Box(segment=2, row=(2, 3))}
    coords = {"present": (("event", "segment"), present)}
    given_ = frames.isel(event=rng.permutation(8))
    flags = {"present": xr.DataArray(present, {"event": times}, ("event", "segment")).sel(event=given_["event"])}
    for correlate in (xs.g2, xs.two_time):
        expected = correlate(frames.where(xr.DataArray(present, dims=("event", "segment"))), regions).drop_attrs()
        for whole in (frames.assign_coords(coords), frames.sd.photon(sparse=True).assign_coords(coords),
                      given_.sd.photon(sparse=True).assign_coords(flags)):  # fmt: skip
            xr.testing.assert_allclose(correlate(whole, regions).drop_attrs(), expected)
    assert xs.g2(frames.assign_coords(coords), regions)["n_events"].values.tolist() == [6, 5, 6, 4, 0]


def test_a_region_without_a_valid_pixel_has_no_events() -> None:
    values = np.random.default_rng(9).random((6, 4, 4))
    values[:, :2] = np.nan
    found = xs.g2(frames_of(values), {"gone": xs.Box(row=(0, 2)), "there": xs.Box(row=(2, 4))})
    assert found["n_events"].values.tolist() == [0, 6]
    assert found["n_pairs"].sel(roi="gone").values.tolist() == [0] * found.sizes["tau"]
