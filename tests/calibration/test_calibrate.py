"""Calibration: the numbers of psana, NaN where a value must not be trusted, errors before anything is computed."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.calibration.calibrate import calibrate
from xsmall.calibration.constants import constants
from xsmall.calibration.transform import Calibration
from xsmall.engine.transform import origin_of
from xsmall.errors import CalibrationError, DataError, GeometryError, ParameterError


def frames(words: np.ndarray, detector: str, **coords: Any) -> xr.DataArray:
    return xr.DataArray(
        words,
        dims=("event", "segment", "row", "column"),
        coords={
            **{d: np.arange(n) for d, n in zip(("segment", "row", "column"), words.shape[1:], strict=True)},
            **coords,
        },
        attrs={"detector_type": detector, "units": "ADU"},
        name="raw",
    )


def small_jungfrau(n: int = 3, shape: tuple[int, int, int] = (2, 4, 6)) -> tuple[xr.DataArray, xr.Dataset]:
    rng = np.random.default_rng(7)
    words = rng.integers(0, 2**16, (n, *shape)).astype(np.uint16)
    table = constants(
        "jungfrau",
        rng.normal(3000, 100, (3, *shape)),
        gain=rng.uniform(1, 40, (3, *shape)) * np.array([1, -1, -1])[:, None, None, None],
        offset=rng.normal(0, 3, (3, *shape)),
        status=(rng.random((3, *shape)) < 0.05) * 4,
    )
    return frames(words, "jungfrau"), table


def by_hand(raw: xr.DataArray, table: xr.Dataset) -> np.ndarray:
    """The formula with NumPy, stage by stage."""
    words = raw.values
    code, adc = words >> 14, (words & 0x3FFF).astype(np.float64)
    out = np.full(words.shape, np.nan)
    for stage, of_code in enumerate((0, 1, 3)):
        part = table.isel(gain_stage=stage)
        value = (adc - part.pedestal.values - part.offset.values) / part.gain.values
        out = np.where(code == of_code, value, out)
    return np.where((table.status.values != 0).any(axis=0), np.nan, out)


def test_jungfrau_equals_psana_where_psana_is_right(shared: Path) -> None:
    oracle = np.load(shared / "oracles/calib-jungfrau.npz")
    table = constants(
        "jungfrau",
        oracle["pedestals"],
        gain=oracle["pixel_gain"],
        offset=oracle["pixel_offset"],
        status=oracle["pixel_status"],
    )
    ours = calibrate(frames(oracle["raw"][None], "jungfrau"), table).values[0]
    no_gain = (oracle["raw"] >> 14 == 0) & (oracle["pixel_gain"][0] == 0)
    untrusted = ((oracle["pixel_status"] & 0xFFFF) != 0).any(axis=0) | (oracle["raw"] >> 14 == 2) | no_gain
    np.testing.assert_array_equal(np.isnan(ours), untrusted)
    theirs = oracle["psana2_v0_nocm"]
    np.testing.assert_allclose(ours[~untrusted], theirs[~untrusted], rtol=1e-6, atol=1e-9)
    assert (theirs[untrusted] == 0).all()


def test_epix10ka_equals_psana_where_psana_is_right(shared: Path) -> None:
    oracle = np.load(shared / "oracles/calib-epix10ka.npz")
    table = constants("epix10ka", oracle["pedestals"], gain=oracle["pixel_gain"])
    raw = frames(oracle["raw"][None], "epix10ka", gain_control=(("segment", "row", "column"), oracle["cbits"]))
    ours = calibrate(raw, table, mask=oracle["mask"] == 1).values[0]
    np.testing.assert_array_equal(np.isnan(ours), oracle["mask"] == 0)
    good = oracle["mask"] == 1
    np.testing.assert_allclose(ours[good], oracle["calib_v02_nocm"][good], rtol=1e-6)


def test_every_gain_code_takes_the_constants_of_its_own_stage() -> None:
    raw, table = small_jungfrau()
    np.testing.assert_allclose(calibrate(raw, table).values, by_hand(raw, table), rtol=2e-6, atol=1e-4)


def test_lazy_and_eager_are_equal_for_any_chunking_and_nothing_computes(
    computing_is_forbidden: Callable[[], Any],
) -> None:
    raw, table = small_jungfrau(9)
    eager = calibrate(raw, table)
    for chunks in ({"event": 1}, {"event": 4, "segment": 1}, {"event": (2, 7), "row": 3}):
        for lazy_constants in (False, True):
            held = table.chunk() if lazy_constants else table
            with computing_is_forbidden():
                lazy = calibrate(raw.chunk(chunks), held)
            assert isinstance(lazy.data, da.Array)
            xr.testing.assert_identical(lazy.compute(), eager)


def test_a_slice_takes_its_own_constants_by_label() -> None:
    raw, table = small_jungfrau()
    whole = calibrate(raw, table)
    for part in ({"segment": [1]}, {"row": slice(1, 3), "column": slice(5, None, -2)}, {"segment": [1, 0]}):
        xr.testing.assert_identical(calibrate(raw.isel(part), table), whole.isel(part))
        xr.testing.assert_identical(
            calibrate(raw.chunk(event=2).isel(part), table.isel(segment=[1, 0])).compute(), whole.isel(part)
        )


def test_missing_and_damaged_segments_are_nan() -> None:
    raw, table = small_jungfrau()
    table = table.drop_vars("status")
    present = np.array([[True, True], [False, True], [True, True]])
    damage = np.array([[0, 0], [0, 0], [0, 3]])
    marked = raw.assign_coords(present=(("event", "segment"), present), damage=(("event", "segment"), damage))
    sound = present & (damage == 0)
    expected = np.where(sound[:, :, None, None], calibrate(raw, table).values, np.nan)
    np.testing.assert_array_equal(calibrate(marked, table).values, expected)
    np.testing.assert_array_equal(calibrate(marked.chunk(event=2), table).values, expected)


def test_units_follow_what_the_constants_know() -> None:
    raw, table = small_jungfrau()
    value = calibrate(raw, table)
    assert value.attrs["units"] == "keV"
    photons = calibrate(raw, table, unit="photon", photon_energy=8000.0)
    assert photons.attrs["units"] == "photon"
    np.testing.assert_allclose(photons.values, value.values / 8.0, rtol=1e-6)
    named = calibrate(raw.assign_coords(photon_energy=8000.0), table, unit="photon")
    np.testing.assert_array_equal(named.values, photons.values)
    camera = frames(raw.values, "opal1000")
    dark = constants("opal", table.pedestal.values[0])
    assert calibrate(camera, dark).attrs["units"] == "ADU"
    np.testing.assert_allclose(calibrate(camera, dark).values, raw.values - dark.pedestal.values[0], rtol=1e-6)
    relative = constants("cspad", table.pedestal.values[0], gain=np.full(raw.shape[1:], 2.0), gain_unit="1")
    cspad = calibrate(frames(raw.values, "cspad"), relative)
    assert cspad.attrs["units"] == "ADU"
    np.testing.assert_allclose(cspad.values, (raw.values - dark.pedestal.values[0]) / 2, rtol=1e-6)
    np.testing.assert_allclose(
        calibrate(raw, table.drop_vars(["status", "offset"]), unit="ADU").values[raw.values < 2**14],
        (raw.values - table.pedestal.values[0])[raw.values < 2**14],
        rtol=1e-6,
    )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "float32", ">u2"])
def test_cameras_of_any_dtype(dtype: str) -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(0, 200, (2, 1, 5, 7)).astype(dtype)
    dark = constants("camera", rng.normal(100, 1, (5, 7)), gain=np.full((5, 7), 3.0))
    expected = (words.astype(float) - dark.pedestal.values[0]) / 3.0
    np.testing.assert_allclose(calibrate(frames(words, "camera"), dark).values, expected, rtol=1e-5, atol=1e-5)


def test_zero_and_nan_gains_make_the_pixel_nan() -> None:
    raw, table = small_jungfrau()
    table = table.drop_vars("status").copy(deep=True)
    table.gain[0, 0, 0, 0] = 0.0
    table.gain[1, 0, 0, 0] = np.nan
    table.pedestal[:, 1, 2, 3] = np.nan
    out = calibrate(raw.where(raw.segment > 5, 100).astype(np.uint16).assign_attrs(raw.attrs), table)
    assert np.isnan(out.values[:, 0, 0, 0]).all()
    assert np.isnan(out.values[:, 1, 2, 3]).all()
    assert np.isfinite(out.values[:, 0, 0, 1:]).all()


def test_unknown_gain_range_of_epix10ka_is_nan() -> None:
    bits = np.array([0, 4, 8, 12, 16, 28, 20, 5], dtype=np.uint8).reshape(1, 2, 4)
    pedestal = np.arange(7.0)[:, None, None, None] * np.ones((1, 2, 4)) * 10
    table = constants("epix10ka", pedestal, gain=np.ones((7, 1, 2, 4)))
    raw = frames(np.stack([np.full((1, 2, 4), w) for w in (1000, 1000 | 1 << 14)]).astype(np.uint16), "epix10ka")
    out = calibrate(raw, table, gain_control=bits).values.reshape(2, 8)
    stages = np.array([[4, np.nan, 2, 1, 3, 0, np.nan, np.nan], [6, np.nan, 2, 1, 5, 0, np.nan, np.nan]])
    np.testing.assert_array_equal(out, 1000 - 10 * stages)


def test_wrong_constants_are_refused_before_anything_is_computed(no_compute: None) -> None:
    raw, table = small_jungfrau()
    lazy = raw.chunk(event=1)
    wrong = [
        (lazy, table.assign_attrs(detector_type="cspad"), "gain stages"),
        (lazy, table.isel(gain_stage=[0, 1]), "gain stages"),
        (lazy, table.isel(gain_stage=[0, 2, 1]), "gain stages"),
        (lazy, table.isel(segment=[0]), "segment"),
        (lazy, table.drop_vars("gain"), "no gain"),
        (lazy, table.drop_vars("pedestal"), "not constants"),
        (lazy, table.assign(gain=table.gain * 0), "usable gain"),
        (lazy, table.assign(gain=table.gain.assign_attrs(units="keV/ADU")), "unit"),
        (lazy.assign_attrs(detector_type="epix10ka"), table, "another detector"),
        (lazy.assign_attrs(detector_type="unheard"), table, "not known"),
        (lazy.drop_attrs(), table, "do not say which detector"),
        (lazy.drop_vars("segment").isel(segment=[1]), table, "differ in 'segment'"),
        (lazy.assign_attrs(run=9), table.assign_attrs(run_range=[10, 20]), "not valid for this run"),
        (lazy.assign_coords(run=("event", [11, 12, 21])), table.assign_attrs(run_range=[10, 20]), "run 21"),
    ]
    for data, given, message in wrong:
        with pytest.raises(CalibrationError, match=message):
            calibrate(data, given)


def test_wrong_data_and_arguments_are_refused(no_compute: None) -> None:
    raw, table = small_jungfrau()
    lazy = raw.chunk(event=1)
    with pytest.raises(DataError, match="calibrated already"):
        calibrate(lazy.assign_attrs(units="keV"), table)
    with pytest.raises(DataError, match="gain code"):
        calibrate(lazy.astype(np.float32), table)
    with pytest.raises(ParameterError, match="boolean"):
        calibrate(lazy, table, mask=np.ones((2, 4, 6), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="shape"):
        calibrate(lazy, table, mask=np.ones((4, 6), bool))
    with pytest.raises(ParameterError, match="unit"):
        calibrate(lazy, table, unit="eV")
    with pytest.raises(ParameterError, match="one photon energy"):
        calibrate(lazy, table, unit="photon")
    with pytest.raises(ParameterError, match="range of its unit"):
        calibrate(lazy, table, unit="photon", photon_energy=9.5)
    epix = constants("epix10ka", np.zeros((7, 2, 4, 6)), gain=np.ones((7, 2, 4, 6)))
    with pytest.raises(CalibrationError, match="gain_control"):
        calibrate(lazy.assign_attrs(detector_type="epix10ka"), epix)


def test_no_events_and_one_event() -> None:
    raw, table = small_jungfrau()
    assert calibrate(raw.isel(event=[]), table).shape == (0, 2, 4, 6)
    np.testing.assert_array_equal(calibrate(raw.isel(event=[1]), table).values[0], calibrate(raw, table).values[1])


def test_raw_frames_are_not_written_to() -> None:
    raw, table = small_jungfrau()
    raw.values.flags.writeable = False
    before = raw.values.copy()
    calibrate(raw, table)
    np.testing.assert_array_equal(raw.values, before)


@pytest.mark.parametrize(("name", "cmpars"), [("psana2_v0_cm7_1", 1), ("psana2_v0_cm7_2", 2), ("psana2_v0_cm7_3", 3)])
def test_jungfrau_with_common_mode_equals_psana(shared: Path, name: str, cmpars: int) -> None:
    oracle = np.load(shared / "oracles/calib-jungfrau.npz")
    table = constants(
        "jungfrau",
        oracle["pedestals"],
        gain=oracle["pixel_gain"],
        offset=oracle["pixel_offset"],
        status=oracle["pixel_status"],
    )
    raw = frames(np.repeat(oracle["raw"][None], 3, axis=0), "jungfrau")
    ours = calibrate(raw, table, common_mode=(7, cmpars, 10, 10)).values
    good = np.isfinite(ours[0])
    assert good.mean() > 0.98
    np.testing.assert_allclose(ours[0][good], oracle[name][good], atol=2e-3, rtol=1e-6)
    assert not np.array_equal(ours[0][good], calibrate(raw, table).values[0][good])
    np.testing.assert_array_equal(ours[1], ours[0])
    lazy = calibrate(raw.chunk(event=2), table.chunk(), common_mode=(7, cmpars, 10, 10))
    np.testing.assert_array_equal(lazy.values, ours)


def test_reasons_choose_what_becomes_nan() -> None:
    raw, table = small_jungfrau()
    bare = calibrate(raw, table.drop_vars("status")).values
    everything = calibrate(raw, table, trust=[]).values
    np.testing.assert_array_equal(everything, bare)
    words, code = raw.values, raw.values >> 14
    status = table.status.values != 0
    stage_bad = np.select([code == 0, code == 1, code == 3], [*status], default=False)
    of_stage = calibrate(raw, table, trust=["gain_stage_status"]).values
    np.testing.assert_array_equal(of_stage, np.where(stage_bad, np.nan, bare))
    hot = calibrate(raw, table, trust=["hot"]).values  # bit 4: values too high too often
    np.testing.assert_array_equal(hot, calibrate(raw, table).values)
    noisy = calibrate(raw, table, trust=["noisy"]).values
    np.testing.assert_array_equal(noisy, bare)
    limited = calibrate(raw, table, trust=["near_switching"], switching={"G0": (0, 9000), "G1": (500, 16383)}).values
    near = ((code == 0) & (words > 9000)) | ((code == 1) & (words & 0x3FFF < 500))
    np.testing.assert_array_equal(limited, np.where(near, np.nan, bare))
    full = raw.copy(data=np.where(words % 3 == 0, 0xC000, np.where(words % 3 == 1, 0x3FFF, words)).astype(np.uint16))
    saturated = calibrate(full, table, trust=["saturated"]).values
    np.testing.assert_array_equal(np.isnan(saturated), (words % 3 != 2) | (code == 2))
    odd = calibrate(raw, table.drop_vars("status"), user=lambda stack, segment: stack % 2 == segment)
    np.testing.assert_array_equal(odd.values, np.where(words % 2 == np.arange(2)[:, None, None], np.nan, bare))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"saturation": {"G0": 16000}}, r'trust=\["default", "saturated"\]'),
        ({"switching": {"G0": (0, 9000)}, "trust": ["default"]}, "'near_switching' is not among the reasons"),
        ({"variance": "nois", "photon_energy": 9500}, "unknown kind of variance"),
        ({"photon_energy": 9500}, "the photon energy changes nothing in keV"),
        ({"photon_energy": 9500, "unit": "ADU", "variance": "noise"}, "changes nothing in ADU"),
        ({"gain_stage": xr.DataArray(0)}, "read from its raw words"),
        ({"gain_control": np.zeros((2, 4, 6), int)}, "does not depend on the configuration"),
    ],
)
def test_arguments_that_would_be_left_out_in_silence_are_refused(arguments: dict, message: str) -> None:
    raw, table = small_jungfrau()
    with pytest.raises(ParameterError, match=message):
        calibrate(raw, table.assign(noise=table.pedestal * 0 + 3), **arguments)


def test_reasons_that_cannot_be_judged_are_refused(no_compute: None) -> None:
    raw, table = small_jungfrau()
    lazy = raw.chunk(event=1)
    camera, dark = lazy.assign_attrs(detector_type="opal"), constants("opal", np.zeros((2, 4, 6)))
    wrong: list[tuple[Any, Any, dict[str, Any], str]] = [
        (lazy, table, {"trust": ["sane"]}, "unknown reason"),
        (lazy, table, {"trust": ["near_switching"]}, "switches its gain"),
        (lazy, table, {"trust": ["near_switching"], "switching": {"G0": (9, 3)}}, "range of ADC"),
        (lazy, table, {"trust": ["near_switching"], "switching": {"G9": (9, 30)}}, "no such gain stage"),
        (camera, dark, {"trust": ["saturated"]}, "saturates is not known"),
        (lazy, table, {"common_mode": 5}, "no common mode"),
        (lazy, table, {"common_mode": -1}, "raw data"),
    ]
    for data, held, arguments, message in wrong:
        with pytest.raises(ParameterError, match=message):
            calibrate(data, held, **arguments)
    full = calibrate(camera, dark, trust=["saturated"], saturation={"G0": 4095})
    with dask.config.set(scheduler="sync"):
        np.testing.assert_array_equal(np.isnan(full.values), raw.values >= 4095)


def test_variance_has_pulls_of_unit_width() -> None:
    rng = np.random.default_rng(11)
    shape, n, photon_energy, rate = (1, 30, 40), 600, 8000.0, 3.0
    table = constants(
        "jungfrau",
        np.full((3, *shape), 3000.0) + np.array([0, 11000, 11000])[:, None, None, None],
        gain=np.array([41.0, -1.45, -0.11])[:, None, None, None] * np.ones(shape),
        noise=np.full((3, *shape), 9.0),
    )
    photons = rng.poisson(rate, (n, *shape))
    adu = 3000 + photons * photon_energy / 1000 * 41.0 + rng.normal(0, 9.0, photons.shape)
    raw = frames(np.rint(adu).astype(np.uint16), "jungfrau")
    both = calibrate(raw.chunk(event=100), table, variance=True, photon_energy=photon_energy)
    value, variance = both["calibrated"], both["calibrated_variance"]
    assert isinstance(variance.data, da.Array)
    assert variance.attrs["units"] == "keV2"
    total, of_total = value.sum(["row", "column"]).values, variance.sum(["row", "column"]).values
    true = rate * photon_energy / 1000 * shape[1] * shape[2]
    pulls = (total - true) / np.sqrt(of_total)
    assert abs(pulls.std() - 1) < 4 / np.sqrt(2 * n)
    assert abs(pulls.mean()) < 5 / np.sqrt(n)
    roi = both.sd.roi(xs.Box(segment=0, row=(0, shape[1]), column=(0, shape[2])))
    np.testing.assert_allclose(roi["sum"].values, total, rtol=1e-6)
    np.testing.assert_allclose(roi["sum_variance"].values, of_total, rtol=1e-5)
    dark = calibrate(raw, table, variance="noise")["calibrated_variance"].values
    np.testing.assert_allclose(dark, (9.0 / 41.0) ** 2, rtol=1e-5)


def test_variance_needs_noise_and_photon_energy() -> None:
    raw, table = small_jungfrau()
    with pytest.raises(CalibrationError, match="noise"):
        calibrate(raw, table, variance=True, photon_energy=8000.0)
    noisy = table.assign(noise=table.pedestal * 0 + 3)
    with pytest.raises(ParameterError, match="photon energy"):
        calibrate(raw, noisy, variance=True)
    with pytest.raises(ParameterError, match="counting"):
        calibrate(raw, noisy, variance=True, unit="ADU")


def test_area_makes_wide_pixels_as_bright_as_others() -> None:
    text = "IP 0 CAMERA 0 0 0 100000 90 0 0 0 0 0\nCAMERA 0 EPIX100:V1 0 0 0 0 0 0 0 0 0 0"
    geometry = xs.Geometry.from_psana(text)
    wide = geometry.areas() / np.median(geometry.areas())
    raw = frames(np.rint(400 * wide[None]).astype(np.uint16), "epix100")
    dark = constants("epix100", np.zeros((704, 768)), gain=np.full((704, 768), 16.0))
    out = calibrate(raw.sd.assign_geometry(geometry), dark, area=True)
    np.testing.assert_allclose(out.values, 25.0, rtol=1e-6)
    part = raw.sd.assign_geometry(geometry).isel(row=slice(300, 400), column=slice(380, 390))
    np.testing.assert_allclose(calibrate(part, dark, area=True).values, 25.0, rtol=1e-6)
    with pytest.raises(GeometryError, match="need the geometry"):
        calibrate(raw, dark, area=True)


def test_coordinates_and_the_index_of_events_stay() -> None:
    raw, table = small_jungfrau(3)
    time = np.datetime64("2026-01-01", "ns") + np.arange(3)
    raw = raw.assign_coords(event=time, i0=("event", [1.0, 2.0, 3.0]))
    noisy = table.assign(noise=table.pedestal * 0 + 3)
    for out in (calibrate(raw, table), calibrate(raw.chunk(event=1), noisy, variance="noise"), xs.trust(raw, table)):
        assert set(out.indexes) == {"event", "segment", "row", "column"}
        xr.testing.assert_identical(out.i0.drop_vars("event"), raw.i0.drop_vars("event"))


def rules(frames: xr.DataArray) -> list[Any]:
    """What calibrations in the graph are made of."""
    nodes = [getattr(node, "value", node) for node in dict(frames.data.dask).values()]
    return [node for node in nodes if getattr(node, "arguments", (None,))[0] is Calibration]


def test_a_calibration_can_be_sent_to_another_process() -> None:
    raw, table = small_jungfrau()
    lazy = calibrate(raw.chunk(event=1), table, common_mode=None)
    origin = origin_of(lazy.data)
    assert origin is not None
    again = pickle.loads(pickle.dumps(origin.transform.compute()))
    out = np.empty((3, *raw.shape[2:]), np.float32)
    again.apply(1, raw.values[:, 1], np.ones(3, bool), out)
    np.testing.assert_array_equal(out, lazy.values[:, 1])


def test_the_graph_holds_the_constants_once(no_compute: None) -> None:
    raw, table = small_jungfrau(50)
    assert len(rules(calibrate(raw.copy(data=raw.chunk(event=1).data), table))) == 1


def test_flags_of_reasons_are_a_mask_of_the_chosen_ones() -> None:
    raw, table = small_jungfrau()
    table = table.drop_vars("status")
    flags = xs.trust(raw, table).isel(event=0, drop=True) * 0
    flags[0, 1, 2], flags[1, 0, 0] = int(xs.Reason.EDGE), int(xs.Reason.SHADOW)
    flags = flags.assign_attrs(xs.trust(raw, table).attrs)
    bare = calibrate(raw, table).values
    edge = (flags.values & int(xs.Reason.EDGE)) != 0
    np.testing.assert_array_equal(calibrate(raw, table, mask=flags).values, np.where(flags.values != 0, np.nan, bare))
    np.testing.assert_array_equal(
        calibrate(raw, table, mask=flags, trust=["edge"]).values, np.where(edge, np.nan, bare)
    )


def test_chunked_coordinates_do_not_ask_for_a_scheduler(no_compute: None) -> None:
    bits = np.full((1, 2, 4), 8, np.uint8)
    table = constants("epix10ka", np.zeros((7, 1, 2, 4)), gain=np.ones((7, 1, 2, 4)), noise=np.ones((7, 1, 2, 4)))
    raw = frames(np.full((3, 1, 2, 4), 50, np.uint16), "epix10ka", gain_control=(("segment", "row", "column"), bits))
    raw = raw.assign_coords(photon_energy=9500.0, present=(("event", "segment"), np.ones((3, 1), bool)))
    out = calibrate(raw.chunk(event=1), table, unit="photon", variance=True)
    assert out["calibrated"].attrs["units"] == "photon"


def test_constants_of_the_configured_ranges_are_enough() -> None:
    rng = np.random.default_rng(0)
    bits = np.full((1, 8, 16), 16, np.uint8)  # automatic, high to low
    bits[0, :, 12:] = 28  # fixed high
    words = rng.normal(3000, 3, (120, 1, 8, 16)).round().astype(np.uint16)
    raw = frames(words, "epix10ka", gain_control=(("segment", "row", "column"), bits))
    table = xs.dark(raw)
    assert np.isnan(table["pedestal"][1:3]).all()
    table = table.assign(gain=(table["pedestal"].dims, np.full((7, 1, 8, 16), 16.4, np.float32)))
    data = raw.isel(event=[0]).copy(deep=True)
    data[0, 0, 2, 3] |= 1 << 14
    out = calibrate(data, table)
    expected = (words[:1] - words.mean(axis=0)) / 16.4
    expected[0, 0, 2, 3] = np.nan  # it has switched, and nobody knows its low pedestal
    np.testing.assert_allclose(out.values, expected, atol=1e-4)
    with pytest.raises(CalibrationError, match="usable pedestal in gain stage AML_M"):
        calibrate(data.assign_coords(gain_control=(("segment", "row", "column"), bits * 0)), table)
    with pytest.raises(CalibrationError, match="no pixel of 'epix10ka' into a gain stage"):
        calibrate(data.assign_coords(gain_control=(("segment", "row", "column"), bits * 0 + 4)), table)


def test_frames_of_a_file_know_their_run(shared: Path) -> None:
    raw = xs.open_run(shared / "data/xtc2/jungfrau05M_mfx101332224_run7.xtc2")["jungfrau"]["raw"]
    shape = (3, *raw.shape[1:])
    table = constants("jungfrau", np.zeros(shape), gain=np.ones(shape), run_range=(8, 20))
    with pytest.raises(CalibrationError, match="not valid for this run"):
        calibrate(raw, table)
    assert calibrate(raw, table.assign_attrs(run_range=[7, 7])).attrs["units"] == "keV"


@pytest.mark.parametrize("lazy", [False, True])
def test_constants_are_judged_over_the_whole_detector_in_memory_or_not(lazy: bool) -> None:
    raw, table = small_jungfrau(2, shape=(3, 4, 6))
    table["pedestal"][:, 1] = np.nan

    def result(known: xr.Dataset) -> xr.DataArray:
        return calibrate(raw.chunk(event=1), known.chunk(segment=1)).compute() if lazy else calibrate(raw, known)

    assert np.isnan(result(table).isel(segment=1)).all()  # a module without constants
    assert np.isfinite(result(table).isel(segment=0)).any()
    table["pedestal"][:, 2] = np.nan
    with pytest.raises(CalibrationError, match="few pixels have a usable pedestal"):
        result(table)


def test_what_lies_beside_frames_is_joined_by_labels_in_any_order() -> None:
    rng = np.random.default_rng(3)
    shape = (2, 4, 6)
    words = rng.integers(0, 2**14, (3, *shape)).astype(np.uint16)
    bits = xr.DataArray(rng.choice([28, 12, 16], shape).astype(np.uint8), dims=("segment", "row", "column"))
    bits = bits.assign_coords({d: np.arange(n) for d, n in zip(bits.dims, shape, strict=True)})
    mask = bits.copy(data=rng.random(shape) < 0.8)
    table = constants("epix10ka", rng.normal(2000, 9, (7, *shape)), gain=rng.uniform(1, 9, (7, *shape)))
    raw = frames(words, "epix10ka")
    order = {"segment": [1, 0], "row": [2, 0, 3, 1], "column": [5, 1, 0, 2, 3, 4]}
    expected = calibrate(raw, table, gain_control=bits, mask=mask)
    found = calibrate(raw, table.isel(order), gain_control=bits.isel(order), mask=mask.isel(order).transpose())
    np.testing.assert_array_equal(found, expected)
    turned = calibrate(raw.isel(order), table, gain_control=bits, mask=mask)
    np.testing.assert_array_equal(turned, expected.isel(order))
    for wrong in ({"gain_control": bits.isel(row=[0, 1])}, {"gain_control": bits, "mask": mask.isel(segment=[0])}):
        with pytest.raises(DataError, match="does not cover every"):
            calibrate(raw, table, **wrong)


@pytest.mark.parametrize("value", [0, 65535, 1234])
def test_padded_segments_are_no_values_and_say_so(value: int) -> None:
    raw, table = small_jungfrau(4, shape=(2, 8, 16))
    words = raw.values.copy()
    words[1, 0], words[2, 1] = value, value
    words[2, 1, 3, 4] ^= 1  # one pixel differs: a measurement
    padded = raw.copy(data=words)
    out, flags = calibrate(padded, table), xs.trust(padded, table)
    assert np.isnan(out[1, 0]).all()
    assert ((flags[1, 0] & int(xs.Reason.PADDED)) != 0).all()
    assert ((flags & int(xs.Reason.PADDED)) != 0).sum() == 8 * 16
    static = xs.trust(raw, table)[0, 0] & 0xFFFF
    np.testing.assert_array_equal(flags[1, 0] & ~np.uint32(int(xs.Reason.PADDED)), static)
    kept = calibrate(padded, table, trust=["constant"])
    np.testing.assert_array_equal(np.delete(out, 1, axis=0), np.delete(kept, 1, axis=0))
    assert np.isfinite(kept[1, 0]).any()
    lazy = padded.chunk(event=1)
    np.testing.assert_array_equal(calibrate(lazy, table), out)
    np.testing.assert_array_equal(xs.trust(lazy, table), flags)
    small = out.sd.roi(xs.Box(segment=0))
    assert small["n_valid"].values[1].item() == 0


def test_frames_whose_pixels_are_all_saturated_are_padded_too() -> None:
    raw, table = small_jungfrau(2, shape=(1, 8, 16))
    words = raw.values.copy()
    words[1] = np.where(np.arange(16) % 2, 0x3FFF, 0xC000)  # full in G0, and in G2, where signal lowers the value
    flags = xs.trust(raw.copy(data=words), table).values
    assert ((flags[1] & int(xs.Reason.PADDED)) != 0).all()
    assert not (flags[0] & int(xs.Reason.PADDED)).any()


def test_calibrating_without_constants_says_what_to_type() -> None:
    raw, _ = small_jungfrau()
    for function in (calibrate, xs.trust):
        with pytest.raises(CalibrationError, match="no constants"):
            function(raw)


def test_areas_of_a_detector_with_pixels_that_are_on_no_panel() -> None:
    panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    geometry = xs.Geometry.from_panels([panel], shape=(2, 6, 8))
    words = np.random.default_rng(0).integers(100, 200, (2, *geometry.shape)).astype("u2")
    raw = xr.DataArray(words, dims=("event", "segment", "row", "column"), attrs={"detector_type": "camera"})
    flat = np.full(geometry.shape, 2.0)
    known = xs.constants("camera", 50 * flat, gain=flat)
    found = xs.calibrate(raw.sd.assign_geometry(geometry), known, area=True)
    np.testing.assert_array_equal(found[:, 0, :4], xs.calibrate(raw, known)[:, 0, :4])
    assert found[:, 1].isnull().all()
