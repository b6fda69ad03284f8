"""``histogram``: counts of NumPy, of pixels, of regions and of lists; chains are records."""

import pickle
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError
from xsmall.kernels.bins import first_bins
from xsmall.kernels.histogram import histogram as kernel
from xsmall.kernels.reference.histogram import histogram as twin

EDGES = np.concatenate([np.linspace(0, 1, 23), [2.5, 9.0, 9.7]])
BOX = xs.Box(segment=1, row=(3, 30), column=(10, 69))


def counts(values: np.ndarray, edges: np.ndarray = EDGES) -> np.ndarray:
    """NumPy's, whose last bin is closed; no value lies on that edge."""
    good = values[np.isfinite(values)]
    return np.histogram(good, edges)[0]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_the_kernel_counts_as_its_twin(dtype: str, lets_others_run: Any) -> None:
    rng = np.random.default_rng(0)
    frame = rng.normal(0.5, 0.5, (64, 80)).astype(dtype)
    frame[rng.random(frame.shape) < 0.1] = np.nan
    frame[2, 2], frame[3, 3], frame[4, 4:6] = np.inf, -np.inf, (0.0, 1.0)
    use = rng.random((50, 61)) < 0.8
    edges = np.sort(rng.normal(0.5, 0.5, 40)).astype(dtype).astype("f8")
    frame[10, 20:30] = edges[3:13]  # values on borders belong to the right
    found, beyond = np.zeros(39, np.int64), np.zeros(3, np.int64)
    kernel(frame, 3, 4, use, edges, first_bins(edges), found, beyond)
    expected, rest = twin(np.where(use, frame[3:53, 4:65], np.nan), edges)
    np.testing.assert_array_equal(found, expected)
    assert tuple(beyond) == rest
    big, all_of_it = np.ones((512, 512), dtype), np.ones((512, 512), bool)
    assert lets_others_run(lambda: kernel(big, 0, 0, all_of_it, edges, first_bins(edges), found, beyond))


def test_counts_are_those_of_numpy_and_nothing_is_lost(frames: xr.DataArray) -> None:
    out = frames.sd.histogram(EDGES)
    for e, values in enumerate(frames.values):
        np.testing.assert_array_equal(out["histogram"][e], counts(values))
        assert int(out["n_above"][e]) == (values[np.isfinite(values)] >= 9.7).sum()
    assert (out["n_valid"] == np.isfinite(frames).sum(("segment", "row", "column"))).all()
    assert (out["histogram"].sum("value") + out["n_below"] + out["n_above"] == out["n_valid"]).all()
    np.testing.assert_array_equal(out["value_bounds"], np.stack([EDGES[:-1], EDGES[1:]], axis=1))
    assert out["value"].attrs["units"] == "keV"
    low = float(frames.min()) + 0.5
    for e, values in enumerate(frames.values):
        below = (values[np.isfinite(values)] < low).sum()
        assert int(frames.sd.histogram([low, 9.7])["n_below"][e]) == below > 0
    even = frames.sd.histogram(20, range=(0, 1))
    xr.testing.assert_identical(even.drop_attrs(), frames.sd.histogram(np.linspace(0, 1, 21)).drop_attrs())


def test_regions_have_histograms_of_their_own(placed: xr.DataArray) -> None:
    band = xs.Band("radius", 1e-3, 3e-3)
    mask = np.random.default_rng(0).random(placed.shape[1:]) > 0.3
    chain = xs.roi({"box": BOX, "band": band}, mask=mask) | xs.histogram(EDGES)
    out = xs.apply(placed, chain)
    assert out["histogram"].dims == ("event", "roi", "value")
    boxed = placed.where(xr.DataArray(mask, dims=placed.dims[1:]))
    for e in range(placed.sizes["event"]):
        np.testing.assert_array_equal(out["histogram"].sel(roi="box")[e], counts(boxed.values[e, 1, 3:30, 10:69]))
        inside = boxed.where(xs.inside(placed, band)).values[e]
        np.testing.assert_array_equal(out["histogram"].sel(roi="band")[e], counts(inside))
    one = xs.apply(placed, xs.roi(BOX, threshold=(0.5, 8.0)) | xs.histogram(EDGES))
    assert one["histogram"].dims == ("event", "value")
    kept = placed.where(placed <= 8.0)
    plain = xs.apply(kept.where((kept >= 0.5) | kept.isnull(), 0), xs.roi(BOX) | xs.histogram(EDGES))
    xr.testing.assert_equal(one, plain)
    xr.testing.assert_equal(placed.sd.histogram(EDGES, place=BOX), xs.apply(placed, xs.roi(BOX) | xs.histogram(EDGES)))


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_the_list_of_another_record_is_counted(frames: xr.DataArray, chunk: int | None) -> None:
    chain = xs.droplet(4.0, 1.0, also=["touches"]) | xs.histogram("sum", 30, range=(5, 12))
    given = frames if chunk is None else frames.chunk(event=chunk)
    small = given.sd.reduce({
        "sums": chain,
        "sizes": xs.droplet(4.0, 1.0) | xs.histogram("n_pixels", [0.5, 1.5, 2.5, 9.5]),
        "drops": xs.droplet(4.0, 1.0),
        "padded": xs.droplet(4.0, 1.0, max_droplets=200) | xs.histogram("sum", 30, range=(5, 12)),
    }).compute()  # fmt: skip
    edges = np.linspace(5, 12, 31)
    for e, sums in enumerate(small["drops_sum"].values):
        np.testing.assert_array_equal(small["sums_histogram"][e], counts(sums, edges))
    np.testing.assert_array_equal(small["sums_n_valid"], small["drops_n_droplets"])
    np.testing.assert_array_equal(small["padded_histogram"], small["sums_histogram"])
    assert (small["sizes_histogram"].sum("n_pixels") == small["sizes_n_valid"] - small["sizes_n_above"]).all()
    assert small["sums_histogram"].dims == ("event", "sums_sum") or small["sums_histogram"].dims == ("event", "sum")
    assert pickle.loads(pickle.dumps(chain)) == chain


def test_results_of_users_functions_are_counted_too(frames: xr.DataArray) -> None:
    high = xs.record(lambda frame: [float(v) for v in frame[frame > 8.0]])
    out = xs.apply(frames, high | xs.histogram("value", 10, range=(8, 10)))
    for e, values in enumerate(frames.values):
        np.testing.assert_array_equal(out["histogram"][e], counts(values[values > 8.0], np.linspace(8, 10, 11)))


def test_projections_of_regions(placed: xr.DataArray) -> None:
    region = xs.Circle((-1e-3, -3e-3), 8e-4)
    chain = xs.roi({"a": BOX, "b": region}) | xs.projection("row", statistic="mean", threshold=1.0)
    small = placed.chunk(event=2).sd.reduce({"p": chain, "q": xs.roi(BOX) | xs.projection("column")}).compute()
    alone = placed.sd.projection("row", BOX, statistic="mean", threshold=1.0)
    np.testing.assert_array_equal(small["p_a_projection"], alone["projection"])
    np.testing.assert_array_equal(small["a_row"], alone["row"])
    np.testing.assert_array_equal(small["q_projection"], placed.sd.projection("column", BOX)["projection"])
    inside = placed.where(xs.inside(placed, region) & np.isfinite(placed))
    cut = inside.where((inside >= 1.0) | inside.isnull(), 0).astype(float)
    found = small["p_b_projection"]
    expected = cut.mean("column").sel(segment=small["b_segment"].values, row=small["b_row"].values)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_chain_of_a_chain_and_empty_runs(placed: xr.DataArray, computing_is_forbidden: Any) -> None:
    chains = {
        "a": xs.roi({"x": BOX, "y": xs.Box(segment=0)}) | xs.projection("row"),
        "b": xs.roi(BOX) | xs.histogram(EDGES),
        "c": xs.droplet(4.0) | xs.histogram("sum", EDGES),
    }
    with computing_is_forbidden():
        lazy = placed.chunk(event=3).sd.reduce(chains)
    xr.testing.assert_identical(lazy.compute(), placed.sd.reduce(chains))
    assert placed[:0].sd.reduce(chains)["c_histogram"].shape == (0, EDGES.size - 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: xs.histogram(10), "range go together"),
        (lambda: xs.histogram([1, 2], range=(0, 1)), "range go together"),
        (lambda: xs.histogram([2, 1]), "are not edges"),
        (lambda: xs.histogram(10, range=(0, 1, 2)), r"range=\(0.5, 4\)"),
        (lambda: xs.azint(range=(np.nan, 1)), r"range=\(0.5, 4\)"),
        (lambda: xs.azint(range=(2, 1)), r"range=\(1, 2\)"),
        (lambda: xs.azint(xs.bins(0.5, 4, n=7)), r"  bins=np\.linspace\(0\.5, 4, 8\)$"),
        (lambda: xs.azint(azimuth_bins=xs.bins(-90, 90, n=4)), r"  azimuth_bins=np\.linspace\(-90, 90, 5\)$"),
        (lambda: xs.azint(xs.bins(0.1, 4, n=5, log=True)), r"  bins=np\.geomspace\(0\.1, 4, 6\)$"),
        (lambda: xs.azint(xs.edges([1, 2, 4])), r"  bins=\[1\.0, 2\.0, 4\.0\]$"),
        (lambda: xs.histogram(xs.bins(0, 1, n=4)), r"  bins=np\.linspace\(0, 1, 5\)$"),
        (lambda: xs.projection(xr.DataArray(np.ones((1, 2, 2)), dims=("segment", "row", "column"))), "without a name"),
        (lambda: xs.histogram("sum"), "needs its bins"),
        (lambda: xs.histogram(EDGES, EDGES), "needs its bins"),
        (lambda: xs.histogram("sum", EDGES, place=BOX), "for the record before"),
        (lambda: xs.projection("row") | xs.projection("row"), "cannot follow"),
        (lambda: xs.projection("row") | xs.histogram(EDGES), "cannot follow"),
        (lambda: xs.roi(BOX) | xs.droplet(4.0), "cannot follow"),
        (lambda: xs.droplet(4.0) | xs.histogram(EDGES), r'cannot follow(.|\n)*xs\.histogram\("sum"'),
        (lambda: xs.roi(BOX) | xs.projection("row", BOX), "a place of a region"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make()


def test_bins_of_pixels_may_be_named() -> None:
    assert xs.histogram(bins=EDGES) == xs.histogram(EDGES)


def test_lists_that_are_not_there_are_refused(frames: xr.DataArray) -> None:
    for record, message in (
        (xs.histogram("sum", EDGES), "a histogram of what"),
        (xs.droplet(4.0) | xs.histogram("mass", EDGES), "does not return"),
        (xs.droplet(4.0, max_droplets=5) | xs.histogram("n_pixels", EDGES), "padded to one length"),
    ):
        with pytest.raises(ParameterError, match=message):
            xs.apply(frames, record)
    with pytest.raises(TypeError):
        xs.roi(BOX) | 3


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_values_on_decimal_borders_are_in_the_bin_to_the_right(dtype: str) -> None:
    values = np.array([float(f"{k / 10:.3g}") for k in range(10)]).astype(dtype)
    frames = xr.DataArray(values.reshape(1, 1, 1, 10), dims=("event", "segment", "row", "column"))
    for record in (xs.histogram(10, range=(0, 1)), xs.histogram(np.arange(0, 1.05, 0.1))):
        assert xs.apply(frames, record)["histogram"].values.tolist() == [[1] * 10]


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_lists_and_events_on_decimal_borders_are_in_the_bin_to_the_right_too(dtype: str) -> None:
    values = np.array([float(f"{k / 10:.3g}") for k in range(10, 21)]).astype(dtype)
    stack = np.zeros((11, 1, 5, 5), dtype)
    stack[:, 0, 2, 2] = values  # one droplet in each event
    dims = ("event", "segment", "row", "column")
    frames = xr.DataArray(stack, {"event": np.arange(11)}, dims, attrs={"units": "keV"})
    edges = np.arange(1, 2.15, 0.1)
    for record in (xs.histogram("sum", edges), xs.histogram("sum", 11, range=(1, 2.1))):
        found = xs.apply(frames, xs.droplet(0.5) | record)
        assert found["histogram"].sum("event").values.tolist() == [1] * 11
    for borders in (edges, np.append(edges.round(1), 4.0)):  # even and uneven bins
        pixel = xs.apply(frames, xs.sums(histogram=borders, count_above=1.4)).isel(segment=0, row=2, column=2)
        assert pixel["histogram"].values.tolist() == [1] * 11 + [0] * (len(borders) - len(edges))
        assert int(pixel["n_above"]) == 7


def test_a_chain_that_is_grouped_from_the_right_loses_none_of_its_records(frames: xr.DataArray) -> None:
    edges = np.arange(0.0, 40.0)
    drops, counts = xs.droplet(4.0, 1.0), xs.histogram("sum", edges)
    for left, right in (
        ((drops | counts) | xs.sums(), drops | (counts | xs.sums())),
        ((xs.photon(9.5, image=True) | xs.projection("row")) | xs.sums(),
         xs.photon(9.5, image=True) | (xs.projection("row") | xs.sums())),
    ):  # fmt: skip
        assert left == right
        xr.testing.assert_identical(frames.sd.apply(left).drop_attrs(), frames.sd.apply(right).drop_attrs())
    for chain in (
        lambda: xs.roi(xs.Box(segment=0)) | (drops | counts),
        lambda: drops | (drops | xs.photon(9.5)),
        lambda: xs.roi(xs.Box(segment=0)) | (drops | xs.sums()),
    ):
        with pytest.raises(ParameterError, match="cannot follow"):
            chain()
