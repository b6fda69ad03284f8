"""Trust flags: every reason where it belongs, the same as what calibration makes NaN, lazy, right on slices."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from xsmall.calibration.calibrate import calibrate
from xsmall.calibration.constants import constants
from xsmall.calibration.trust import trust
from xsmall.errors import DataError
from xsmall.frames.mask import usable
from xsmall.vocabulary import Reason


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


def has(flags: xr.DataArray, reason: Reason) -> np.ndarray:
    return (flags.values & int(reason)) != 0


def marked() -> tuple[xr.DataArray, xr.Dataset]:
    raw, table = small_jungfrau(5)
    present = np.ones((5, 2), bool)
    damage = np.zeros((5, 2), np.uint16)
    present[1, 0], damage[2, 1] = False, 8
    raw = raw.where(xr.DataArray(present, dims=("event", "segment")), 0).astype(np.uint16).assign_attrs(raw.attrs)
    return raw.assign_coords(present=(("event", "segment"), present), damage=(("event", "segment"), damage)), table


def test_every_reason_is_where_it_belongs() -> None:
    raw, table = marked()
    flags = trust(raw, table, switching={"G0": (0, 9000)})
    words, code = raw.values, raw.values >> 14
    here = np.broadcast_to(raw.present.values[:, :, None, None], words.shape)
    status = table.status.values != 0
    of_stage = np.select([code == 0, code == 1, code == 3], [*status], default=False)
    np.testing.assert_array_equal(has(flags, Reason.HOT), np.broadcast_to(status.any(axis=0), words.shape))
    np.testing.assert_array_equal(has(flags, Reason.GAIN_STAGE_STATUS), of_stage & here)
    np.testing.assert_array_equal(has(flags, Reason.BAD_GAIN_CODE), (code == 2) & here)
    np.testing.assert_array_equal(has(flags, Reason.NEAR_SWITCHING), (code == 0) & (words > 9000) & here)
    np.testing.assert_array_equal(has(flags, Reason.SATURATED), (words == 0xC000) | (words == 0x3FFF))
    np.testing.assert_array_equal(has(flags, Reason.MISSING), ~here)
    damaged = np.broadcast_to((raw.damage.values == 8)[:, :, None, None], words.shape)
    np.testing.assert_array_equal(has(flags, Reason.DAMAGED), damaged)
    assert flags.attrs["flag_meanings"].split()[0] == "dead"


@pytest.mark.parametrize(
    "chosen", [None, [], ["default", "saturated"], ["gain_stage_status"], ["default", "near_switching"], ["damaged"]]
)
def test_calibration_makes_nan_of_exactly_the_chosen_reasons(chosen: list[str] | None) -> None:
    raw, table = marked()
    zone = {"G0": (0, 9000), "G1": (500, 16383)}
    flags = trust(raw, table, switching=zone)
    value = calibrate(raw, table, trust=chosen, switching=zone if "near_switching" in (chosen or ()) else None)
    always = ["bad_gain_code", "missing"]
    groups = {"default": ["dead", "hot", "noisy", "other_status", "damaged"]}
    names = [n for c in (["default"] if chosen is None else chosen) for n in groups.get(c, [c])] + always
    np.testing.assert_array_equal(np.isfinite(value.values), usable(flags, names).values)


def test_masks_and_users_functions_are_flagged_user() -> None:
    raw, table = marked()
    mask = np.ones(raw.shape[1:], bool)
    mask[0, 1, 2] = False
    flags = trust(raw, table, mask=mask, user=lambda words, segment: words % 7 == 1)
    expected = ~mask | ((raw.values % 7 == 1) & raw.present.values[:, :, None, None])
    np.testing.assert_array_equal(has(flags, Reason.USER), expected)
    given = xr.full_like(raw.isel(event=0, drop=True), int(Reason.EDGE)).assign_attrs(flags.attrs)
    assert has(trust(raw, table, mask=given), Reason.EDGE).all()
    with pytest.raises(DataError, match="user's function"):
        trust(raw, table, user=lambda words, segment: words)  # type: ignore[arg-type,return-value]


def test_unknown_gain_ranges_are_bad_gain_codes() -> None:
    bits = np.array([[[0, 4, 8, 20]]], dtype=np.uint8)
    table = constants("epix10ka", np.zeros((7, 1, 1, 4)), status=np.eye(7, 4, k=-6)[:, None, None].astype(int))
    raw = frames(np.array([[100, 100, 100, 100], [0x4064] * 4], np.uint16)[:, None, None], "epix10ka")
    flags = trust(raw, table, gain_control=bits)
    np.testing.assert_array_equal(has(flags, Reason.BAD_GAIN_CODE)[:, 0, 0], [[False, True, False, True]] * 2)
    np.testing.assert_array_equal(has(flags, Reason.GAIN_STAGE_STATUS)[:, 0, 0, 0], [False, True])
    assert not has(flags, Reason.HOT).any()


def test_cameras_of_any_dtype_are_flagged() -> None:
    words = np.array([[[[0.0, 1.0], [np.nan, 4095.0]]]], np.float32)
    dark = constants("camera", np.zeros((2, 2)))
    flags = trust(frames(words, "camera"), dark, saturation={"G0": 4095})
    assert has(flags, Reason.NOT_FINITE)[0, 0].tolist() == [[False, False], [True, False]]
    assert has(flags, Reason.SATURATED)[0, 0].tolist() == [[False, False], [False, True]]
    assert not trust(frames(words[..., :1, :], "camera"), dark.isel(row=[0])).values.any()


@pytest.mark.parametrize("dtype", ["int32", "float32", "int64"])
def test_only_what_is_too_high_is_saturated(dtype: str) -> None:
    words = np.array([[[[-50, 99999], [100000, 300000]]]], dtype)
    raw, dark, limit = frames(words, "camera"), constants("camera", np.zeros((2, 2))), {"G0": 100000}
    flags = trust(raw, dark, saturation=limit)
    assert has(flags, Reason.SATURATED)[0, 0].tolist() == [[False, False], [True, True]]
    kept = calibrate(raw, dark, trust=["saturated"], saturation=limit)
    np.testing.assert_array_equal(kept.values[0, 0], [[-50, 99999], [np.nan, np.nan]])


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float64"])
def test_ranges_far_from_switching_hold_for_any_dtype(dtype: str) -> None:
    words = np.array([[[[5, 50], [500, 5000]]]], dtype)
    raw, dark, wanted = frames(words, "camera"), constants("camera", np.zeros((2, 2))), {"G0": (10, 1000)}
    flags = trust(raw, dark, switching=wanted)
    assert has(flags, Reason.NEAR_SWITCHING)[0, 0].tolist() == [[True, False], [False, True]]
    dropped = calibrate(raw, dark, trust=["near_switching"], switching=wanted)
    np.testing.assert_array_equal(np.isnan(dropped.values), has(flags, Reason.NEAR_SWITCHING))


def test_pixels_without_usable_constants_are_flagged_in_that_stage() -> None:
    raw, table = small_jungfrau()
    table = table.drop_vars("status").copy(deep=True)
    table.gain[1, 0, 1, 2], table.gain[0, 1, 0, 0], table.pedestal[2, 1, 3, 3] = 0.0, np.nan, np.nan
    table.gain[0, 0, 2, 2] = np.inf  # every value would come out as 0
    table["offset"] = xr.zeros_like(table.pedestal)
    table.offset[0, 1, 2, 1] = np.nan
    flags = trust(raw, table)
    value = calibrate(raw, table)
    np.testing.assert_array_equal(np.isnan(value.values), has(flags, Reason.NOT_FINITE | Reason.BAD_GAIN_CODE))
    code = raw.values[:, 0, 1, 2] >> 14
    np.testing.assert_array_equal(has(flags, Reason.NOT_FINITE)[:, 0, 1, 2], code == 1)
    for s, row, column in ((0, 2, 2), (1, 2, 1)):
        code = raw.values[:, s, row, column] >> 14
        np.testing.assert_array_equal(has(flags, Reason.NOT_FINITE)[:, s, row, column], code == 0)
