"""Waveforms: twins, pulses of known sums and times, templates of known shares."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError
from xsmall.events.ragged import object_array, ragged_attrs
from xsmall.kernels import waveform as kernel
from xsmall.kernels.reference import waveform as twin

N = 400


def pulse(begin: float, rise: float = 4.0, fall: float = 15.0) -> np.ndarray:
    """A pulse with a steep begin and a long tail; its highest value is 1."""
    t = np.maximum(np.arange(N) - begin, 0)
    shape = (1 - np.exp(-t / rise)) * np.exp(-t / fall)
    return shape / ((1 - 1 / (1 + fall / rise)) * (1 + fall / rise) ** (-rise / fall))


def waves(values: np.ndarray, chunk: int | None = None, *, channels: bool = False) -> xr.DataArray:
    dims = ("event", "channel", "sample") if channels else ("event", "sample")
    data = values if chunk is None else da.from_array(values, chunks=(chunk, *values.shape[1:]))
    return xr.DataArray(data, {"event": np.arange(len(values))}, dims, attrs={"units": "V"})


def test_hits_are_those_of_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    for seed in range(40):
        wave = sum(rng.uniform(2, 30) * pulse(b) for b in rng.uniform(20, 380, 1 + seed % 4)) + rng.normal(0, 0.3, N)
        wave[:3] = 0.0
        room = np.empty((100, 4))
        for delay, fraction in ((0, 0.5), (5, 0.4), (12, 0.7)):
            n = kernel.hits(wave, (0, N), (0.1, 1.0, 2.0), (fraction, delay, 1), room)
            expected = np.array(twin.hits(wave, 0.1, 2.0, fraction, delay)).reshape(-1, 3)
            np.testing.assert_allclose(room[:n, :3], expected, rtol=1e-9)


def test_fits_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(1)
    templates, wave = rng.normal(size=(5, 120)), rng.normal(size=N).astype("f4")
    out = np.empty(5)
    rest, square = kernel.fit(wave, 30, 0.25, templates, np.ascontiguousarray(np.linalg.pinv(templates).T), out)
    expected = twin.fit(wave[30:150], 0.25, templates)
    np.testing.assert_allclose(out, expected[0], rtol=1e-10)
    np.testing.assert_allclose([rest, square], expected[1:], rtol=1e-10)


def test_integrals_are_the_sums_above_the_baseline_with_their_errors() -> None:
    rng = np.random.default_rng(2)
    truth = 3.0 * pulse(100)[95:300].sum()
    noisy = 20 + 3.0 * pulse(100) + rng.normal(0, 0.2, (3000, N))
    for how in ("mean", "median"):
        found = waves(noisy).sd.waveform_integral((95, 300), (0, 90), baseline=how)
        pulls = (found["integral"] - truth) / np.sqrt(found["integral_variance"])
        assert abs(float(pulls.mean())) < 4 / np.sqrt(3000)
        assert abs(float(pulls.std()) - 1) < 0.06
        assert abs(float(found["background"].mean()) - 20) < 0.01
        assert abs(float(found["background_noise"].mean()) - 0.2) < 0.005
    assert found["integral"].attrs["units"] == "V"
    assert found["integral_variance"].attrs["units"] == "(V)2"
    flipped = waves(-noisy).sd.waveform_integral({"a": (95, 300), "b": (300, 400)}, (0, 90), polarity="negative")
    np.testing.assert_allclose(flipped["integral"].sel(window="a"), found["integral"], rtol=1e-9)
    assert flipped["integral"].dims == ("event", "window")
    assert (np.abs(found["time"] - int(pulse(100).argmax())) < 8).all()


def test_the_times_of_constant_fraction_do_not_depend_on_the_height() -> None:
    heights = np.array([3.0, 10.0, 100.0, 1000.0])
    clean = heights[:, None] * pulse(150.3)
    fixed = waves(clean).sd.waveform_hits(1.0)
    constant = waves(clean).sd.waveform_hits(1.0, delay=6, fraction=0.4)
    walk = np.array([t[0] for t in fixed["time"].values])
    times = np.array([t[0] for t in constant["time"].values])
    assert np.ptp(times) < 1e-9
    assert np.ptp(walk) > 1
    np.testing.assert_allclose([a[0] for a in constant["amplitude"].values], clean.max(axis=1))


def test_hits_of_known_times_are_found_in_noise_in_all_channels() -> None:
    rng = np.random.default_rng(3)
    begins = rng.uniform(60, 160, (50, 2, 1)) + np.array([0, 150])
    made = np.array([[sum(20 * pulse(b) for b in channel) for channel in event] for event in begins])
    made += 5 + rng.normal(0, 0.3, made.shape)
    found = waves(made, 7, channels=True).sd.waveform_hits(xs.sigma(12), (0, 55), delay=5, separation=60).compute()
    assert (found["n_hits_of_channel"] == 2).all()
    assert found["n_hits"].values.tolist() == [4] * 50
    late = np.stack(found["time"].values).reshape(50, 2, 2) - begins
    assert late.std() < 0.2
    assert np.abs(late - late.mean()).max() < 1
    assert np.stack(found["hit_channel"].values)[0].tolist() == [0, 0, 1, 1]
    table = xs.to_pandas(found)
    assert len(table) == 200


def test_a_waveform_without_hits_is_no_error() -> None:
    """smalldata_tools' hitFinderCFD crashes there."""
    found = waves(np.zeros((3, N))).sd.waveform_hits(1.0, delay=5)
    assert found["n_hits"].values.tolist() == [0, 0, 0]
    assert all(t.size == 0 for t in found["time"].values)


def test_a_value_at_the_threshold_is_a_hit_and_thresholds_below_zero_are_refused() -> None:
    """smalldata_tools' SimpleHitFinder keeps it as a value, and marks everything below 0."""
    made = np.zeros((1, N))
    made[0, 50:53] = 1.0
    assert waves(made).sd.waveform_hits(1.0)["n_hits"].values.tolist() == [1]
    with pytest.raises(ParameterError, match="invalid threshold"):
        waves(made).sd.waveform_hits(-1.0)


def test_shares_of_templates_in_noise_have_honest_errors() -> None:
    rng = np.random.default_rng(4)
    shapes = np.stack([pulse(100), pulse(100, 8, 40)])
    share = rng.uniform(1, 5, (2000, 2))
    made = 7 + share @ shapes + rng.normal(0, 0.1, (2000, N))
    templates = xr.DataArray(shapes[:, 95:250], {"sample": np.arange(95, 250)}, ("template", "sample"))
    found = waves(made).sd.waveform_fit(templates, (0, 90), baseline="mean")
    pulls = (found["coefficient"].values - share) / np.sqrt(found["coefficient_variance"].values)
    assert np.abs(pulls.mean(axis=0)).max() < 4 / np.sqrt(2000)
    assert np.abs(pulls.std() - 1) < 0.06
    assert float(found["explained"].min()) > 0.98
    np.testing.assert_allclose(found["residual"].mean(), 0.1, rtol=0.05)


def test_overlapping_pulses_are_told_apart_and_nothing_is_wrapped_around() -> None:
    """smalldata_tools rolls the basis, so that the end of a late pulse comes in at the begin."""
    part = xr.DataArray(pulse(50)[None, 45:130], {"sample": np.arange(45, 130)}, ("template", "sample"))
    made = 4 * pulse(50) - 2 * pulse(62)
    found = waves(made[None]).sd.waveform_fit(part, delays=(0, 12))
    np.testing.assert_allclose(found["coefficient"].squeeze(), [4, -2], atol=0.02)
    assert found["pulse"].values.tolist() == [0, 12]
    np.testing.assert_allclose(found["amplitude"].squeeze(), [4, -2], rtol=0.02)
    with pytest.raises(ParameterError, match="beyond the waveform"):
        waves(made[None]).sd.waveform_fit(part, delays=(0, 350))


def test_learned_templates_use_the_same_baseline_as_the_fit() -> None:
    """smalldata_tools builds without a baseline and fits with one: 2.76 for a pulse of 3.36."""
    rng = np.random.default_rng(5)
    heights = rng.uniform(1, 5, 300)
    made = 11 + heights[:, None] * pulse(120) + rng.normal(0, 0.02, (300, N))
    for background in (None, (0, 100)):
        data = waves(made if background else made - 11)
        basis = xs.waveform_basis(data, 2, (110, 260), background)
        found = data.sd.waveform_fit(basis, background)
        np.testing.assert_allclose(found["amplitude"], heights, rtol=0.05)
        np.testing.assert_allclose(found["norm"], heights * np.linalg.norm(pulse(120)[110:260]), rtol=0.02)
        assert basis["singular_value"][0] > 50 * basis["singular_value"][1]


def test_several_channels_at_once_have_templates_of_their_own() -> None:
    """smalldata_tools' fit crashes with several waveforms."""
    shapes = np.stack([pulse(100), pulse(150, 8, 40)])
    made = np.arange(1.0, 9.0)[:, None, None] * shapes
    data = waves(made, 3, channels=True)
    basis = xs.waveform_basis(data, 1, (90, 300))
    assert basis.dims == ("channel", "template", "sample")
    found = data.sd.waveform_fit(basis).compute()
    np.testing.assert_allclose(
        found["amplitude"], np.arange(1.0, 9.0)[:, None] * shapes[:, 90:300].max(axis=1), rtol=1e-6
    )
    assert found["amplitude"].dims == ("event", "channel")


@pytest.mark.parametrize("chunk", [1, 2, 5, 9])
def test_no_chunking_changes_a_bit(chunk: int, computing_is_forbidden) -> None:
    rng = np.random.default_rng(6)
    made = rng.normal(0, 1, (9, 2, N)).astype("f4") + 10 * pulse(100).astype("f4")
    templates = xr.DataArray(pulse(100)[None], {"sample": np.arange(N)}, ("template", "sample"))
    records = {
        "sum": xs.waveform_integral((90, 200), (0, 80)),
        "hit": xs.waveform_hits(4.0, (0, 80), delay=4),
        "fit": xs.waveform_fit(templates, (0, 80)),
    }
    with computing_is_forbidden():
        lazy = waves(made, chunk, channels=True).sd.reduce(records)
    one, other = waves(made, channels=True).sd.reduce(records), lazy.compute()
    for name in one.data_vars:
        if one[name].dtype != object:
            np.testing.assert_array_equal(one[name], other[name])
    for event in range(9):
        np.testing.assert_array_equal(one["hit_time"].values[event], other["hit_time"].values[event])


def test_what_is_not_valid_is_told() -> None:
    made = np.tile(5 * pulse(100), (3, 1))
    made[0] = np.nan
    made[1, 110] = np.nan
    data = waves(made)
    summed = data.sd.waveform_integral((90, 200), (0, 80))
    assert summed["n_valid"].values.tolist() == [0, 109, 110]
    assert np.isnan(summed["integral"].values[0])
    hits = data.sd.waveform_hits(1.0, (0, 80))
    assert hits["n_hits"].values[0] == 0
    part = xr.DataArray(pulse(100)[None, 90:200], {"sample": np.arange(90, 200)}, ("template", "sample"))
    fitted = data.sd.waveform_fit(part, (0, 80))
    assert np.isnan(fitted["coefficient"].values[:2]).all()
    np.testing.assert_allclose(fitted["coefficient"].values[2], 5, rtol=1e-6)


def test_labels_of_samples_count_from_the_whole_waveform() -> None:
    made = waves(5 * pulse(100)[None]).assign_coords(sample=np.arange(N))
    whole = made.sd.waveform_hits(1.0, delay=4)
    part = made.isel(sample=slice(60, 300)).sd.waveform_hits(1.0, delay=4)
    np.testing.assert_allclose(part["time"].values[0], whole["time"].values[0], rtol=1e-12)
    with pytest.raises(ParameterError, match="beyond the waveform"):
        made.isel(sample=slice(60, 300)).sd.waveform_integral((0, 50))


def test_lists_of_a_digitizer_become_waveforms() -> None:
    lists = object_array([np.full(6, i, "u2") for i in range(4)])
    lists[2] = np.zeros(0, "u2")
    lists[3] = np.zeros(5, "u2")
    ragged = xr.DataArray(lists, {"event": np.arange(4)}, ("event",), attrs=ragged_attrs("sample", "u2"))
    lazy = ragged.copy(data=da.from_array(lists, chunks=2))
    for made in (xs.waveforms(ragged), xs.waveforms(lazy), xs.waveforms(lazy, 6).compute()):
        assert made.shape == (4, 6)
        assert made.isnull().all("sample").values.tolist() == [False, False, True, True]
    assert made.sd.waveform_integral((0, 6))["integral"].values[1] == 6.0
    with pytest.raises(DataError, match="no waveforms as lists"):
        xs.waveforms(xr.DataArray(np.zeros(3), dims="event"))
    with pytest.raises(DataError, match="not one waveform"):
        xs.waveforms(ragged[2:3])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: xs.waveform_integral((5, 5)), "no window"),
        (lambda: xs.waveform_integral({}), "no window"),
        (lambda: xs.waveform_integral((0, 5), baseline="mode"), "invalid baseline"),
        (lambda: xs.waveform_integral((0, 5), baseline="mean"), "taken from a background"),
        (lambda: xs.waveform_hits(1.0, fraction=0.3), "without delay"),
        (lambda: xs.waveform_integral((0, 5), polarity="up"), "invalid polarity"),
        (lambda: xs.waveform_hits(xs.sigma(5)), "needs the noise"),
        (lambda: xs.waveform_hits(1.0, delay=0), "invalid delay"),
        (lambda: xs.waveform_hits(1.0, fraction=1.5), "invalid fraction"),
        (lambda: xs.waveform_hits(1.0, separation=1.5), "invalid separation"),
        (lambda: xs.waveform_fit(np.zeros((2, 5))), "no templates"),
        (lambda: xs.waveform_fit(xr.DataArray(np.full((1, 5), np.nan), dims=("template", "sample"))), "no templates"),
        (lambda: xs.waveform_fit(xr.DataArray(np.ones((2, 5)), dims=("template", "sample"))), "depend on each other"),
        (lambda: xs.waveform_fit(xr.DataArray(np.ones((1, 5)), dims=("template", "sample")), delays=(0, 0)), "delays"),
        (lambda: xs.waveform_basis(waves(np.ones((3, N))), 0, (0, 9)), "invalid n_templates"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        make()


def test_frames_are_no_waveforms() -> None:
    frames = xr.DataArray(np.zeros((2, 1, 4, 5)), dims=("event", "segment", "row", "column"))
    with pytest.raises(DataError, match="no waveforms"):
        xs.apply(frames, xs.waveform_integral((0, 3)))
    with pytest.raises(DataError, match="too few"):
        xs.waveform_basis(waves(np.full((4, N), np.nan)), 1, (0, 9))


def test_the_kernels_release_the_gil(lets_others_run) -> None:
    wave, room = np.random.default_rng(0).normal(size=200_000), np.empty((10, 4))
    assert lets_others_run(lambda: kernel.hits(wave, (0, wave.size), (0.0, 1.0, 1.0), (0.5, 3, 1), room))
