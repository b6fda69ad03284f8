"""The table of detector types and the schema of constants."""

import numpy as np
import pytest
import xarray as xr

from xsmall.calibration.constants import check_constants, constants, select_constants
from xsmall.calibration.reasons import DEFAULT_TRUST, adc_limits, chosen_reasons
from xsmall.calibration.tables import Settings, control_stages, pack
from xsmall.detector.part import Part
from xsmall.detector.types import DETECTOR_TYPES, Decoding, DetectorType, detector_type
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.vocabulary import Reason

ENTRIES = sorted({entry.name: entry for entry in DETECTOR_TYPES.values()}.values(), key=lambda entry: entry.name)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entries_of_the_table_are_consistent(entry: DetectorType) -> None:
    assert all(DETECTOR_TYPES[name] is entry for name in (entry.name, *entry.aliases))
    assert all(name == name.lower() for name in (entry.name, *entry.aliases))
    assert len(set(entry.stages)) == entry.n_stages
    assert set(entry.status_stages) <= set(range(entry.n_stages))
    assert len(entry.nominal_gain) in (0, entry.n_stages)
    assert entry.data_shift + entry.data_bits <= 16
    assert (entry.n_stages == 1) == (entry.decoding is Decoding.FIXED)
    if entry.decoding is not Decoding.CONTROL:
        assert len(entry.stage_of_code) == entry.n_codes or entry.decoding is Decoding.BESIDE
        assert set(entry.stage_of_code) - {-1} <= set(range(entry.n_stages))
        assert entry.stage_of_code[0] == 0
    if entry.decoding is not Decoding.BESIDE:
        assert not (entry.n_codes - 1) << entry.code_shift & entry.data_mask
    assert all(code < entry.n_codes and 0 <= value <= entry.adc_max for code, value, _ in entry.saturation)


def test_unknown_types_are_refused_with_the_known_ones() -> None:
    for name in ("unheard", "", None, 3):
        with pytest.raises(CalibrationError, match="jungfrau"):
            detector_type(name)


def test_gain_ranges_of_epix10ka_follow_the_control_bits() -> None:
    entry = detector_type("epix10ka")
    bits = np.arange(32)
    before, after = control_stages(entry, bits)
    for c in bits:
        for stage, data in ((before[c], 0), (after[c], 32)):
            word = int(c) | data
            rules = [
                (word & 28) == 28, (word & 28) == 12, (word & 12) == 8,
                (word & 60) == 16, (word & 60) == 0, (word & 60) == 48, (word & 60) == 32,
            ]  # fmt: skip
            assert stage == (rules.index(True) if any(rules) else -1), (c, data)


def test_gain_ranges_of_epixuhr_follow_the_control_word() -> None:
    entry = detector_type("epixuhr")
    before, after = control_stages(entry, np.array([32, 40, 1, 33, 16, 48, 24, 56, 36, 9, 2]))
    assert before.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 2, -1]
    assert after.tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 0, 2, -1]


def test_values_above_bit_zero_are_packed_exactly() -> None:
    entry = detector_type("epixuhr")
    pedestal = np.full((12, 1, 1, 2), 100.25, np.float32)
    settings = Settings(entry, np.dtype(np.uint16), Part.whole((1, 1, 2)))
    held = {"pedestal": pedestal[None, :, 0], "gain": np.full((1, 12, 1, 2), 1.5), "gain_control": np.array([[32, 16]])}
    tables = pack(settings, held, lambda c: held)
    word = np.float32(700 << 1)
    value = (word - tables.pedestal[0, 0]) * tables.factor[0, 0]
    np.testing.assert_allclose(value, (700 - 100.25) / 1.5, rtol=1e-6)


def test_single_stages_and_segments_may_leave_their_dims_out() -> None:
    assert constants("epix100", np.zeros((704, 768))).sizes["segment"] == 1
    assert constants("cspad", np.zeros((32, 5, 6))).sizes["segment"] == 32
    assert constants("jungfrau", np.zeros((3, 5, 6))).sizes["gain_stage"] == 3
    for kind, shape in (
        ("jungfrau", (2, 5, 6)),
        ("jungfrau", (5, 6)),
        ("cspad", (2, 3, 4, 5)),
        ("epix10ka", (3, 1, 5, 6)),
    ):
        with pytest.raises(CalibrationError, match="shape"):
            constants(kind, np.zeros(shape))
    with pytest.raises(CalibrationError, match="differ in shape"):
        constants("camera", np.zeros((4, 5)), gain=np.zeros((4, 6)))
    with pytest.raises(CalibrationError, match="bits"):
        constants("camera", np.zeros((4, 5)), status=np.full((4, 5), 0.5))


@pytest.mark.parametrize("pedestal", [np.full((4, 6), 1j), np.full((4, 6), "100"), np.full((4, 6), None)])
def test_what_is_no_number_is_no_constant(pedestal: np.ndarray) -> None:
    with pytest.raises(CalibrationError, match="dtype that constants cannot have"):
        constants("camera", pedestal)


def test_constants_are_checked_without_being_computed(no_compute: None) -> None:
    table = constants("jungfrau", np.zeros((3, 2, 4, 6)), gain=np.ones((3, 2, 4, 6)), segment=[3, 5]).chunk()
    checked = check_constants(table.transpose("row", "column", "segment", "gain_stage"))
    assert checked["pedestal"].dims == ("gain_stage", "segment", "row", "column")
    part = select_constants(checked, Part((5,), (2, 1), range(6)))
    assert part.segment.values.tolist() == [5]
    wrong = [
        (table.drop_vars("pedestal"), "not constants"),
        (xr.DataArray(0.0), "not constants"),
        (table.assign(status=table.gain), "dtype"),
        (table.assign(gain=table.gain.isel(row=0)), "other dims"),
        (table.assign_coords(segment=[3, 3]), "twice"),
        (table.assign_attrs(detector_type=None), "not said"),
        (table.assign_coords(gain_stage=[0, 2, 1]), "out of order"),
    ]
    for given, message in wrong:
        with pytest.raises(CalibrationError, match=message):
            check_constants(given)
    with pytest.raises(CalibrationError, match="do not have every segment"):
        select_constants(checked, Part((4,), range(4), range(6)))


def test_reasons_by_name() -> None:
    assert chosen_reasons(None) == DEFAULT_TRUST
    assert Reason.SATURATED not in DEFAULT_TRUST
    assert Reason.NEAR_SWITCHING not in DEFAULT_TRUST
    assert Reason.BAD_GAIN_CODE in chosen_reasons([])
    assert chosen_reasons("saturated") == chosen_reasons([Reason.SATURATED])
    with pytest.raises(ParameterError, match="unknown reason"):
        chosen_reasons(["bad"])


def test_limits_of_trusted_values() -> None:
    entry = detector_type("jungfrau")
    assert adc_limits(entry, Reason(0)) == ()
    assert adc_limits(entry, Reason.SATURATED) == ((0, 16382), (0, 16383), (0, 16383), (1, 16383))
    near = adc_limits(entry, Reason.NEAR_SWITCHING, None, {"G0": (0, 12000), "G1": (400, 16383)})
    assert near == ((0, 12000), (400, 16383), (0, 16383), (0, 16383))
    assert adc_limits(detector_type("epixuhr"), Reason.SATURATED) == ((0, 2046 << 1), (0, 2046 << 1))


def test_labelled_arrays_are_joined_by_their_labels() -> None:
    rng = np.random.default_rng(0)
    dims = ("gain_stage", "segment", "row", "column")
    coords = {"gain_stage": [0, 1, 2], "segment": [2, 3, 5], "row": range(4), "column": range(6)}
    pedestal, gain = (xr.DataArray(rng.random((3, 3, 4, 6)).astype("f4"), dims=dims, coords=coords) for _ in range(2))
    expected = constants("jungfrau", pedestal, gain=gain)
    assert expected["segment"].values.tolist() == [2, 3, 5]
    for turned in (
        gain.isel(segment=[1, 2, 0]),
        gain.isel(row=[3, 1, 0, 2]),
        gain.isel(gain_stage=[2, 0, 1]),
        gain.transpose(*dims[::-1]),
        xr.concat([gain, gain.isel(segment=[0]).assign_coords(segment=[7])], "segment"),
    ):
        xr.testing.assert_identical(constants("jungfrau", pedestal, gain=turned), expected)
    xr.testing.assert_identical(constants("jungfrau", pedestal.values, gain=gain, segment=[2, 3, 5]), expected)
    part = constants("jungfrau", pedestal, gain=gain, segment=[5, 2])
    np.testing.assert_array_equal(part["gain"], gain.isel(segment=[2, 0]))
    assert constants("jungfrau", pedestal, gain=gain.values)["gain"].equals(expected["gain"])
    with pytest.raises(DataError, match="gain does not cover every segment"):
        constants("jungfrau", pedestal, gain=gain.isel(segment=[0, 1]))
    with pytest.raises(CalibrationError, match="gain stages"):
        constants("jungfrau", pedestal, gain=gain.isel(gain_stage=[0, 1]))
    with pytest.raises(CalibrationError, match="other dims"):
        constants("jungfrau", pedestal, gain=gain.rename(row="y"))
    camera = constants("camera", pedestal.isel(gain_stage=0, segment=1), gain=gain.isel(gain_stage=0, segment=1).values)
    assert camera["segment"].values.tolist() == [3]
    with pytest.raises(DataError, match="gain does not cover every segment"):
        constants("camera", pedestal.isel(gain_stage=0, segment=1), gain=gain.isel(gain_stage=0, segment=2))
