"""Common mode: records, numbers, and the arrays that psana and smalldata_tools made."""

from pathlib import Path

import numpy as np
import pytest

from xsmall.calibration.common_mode.mode import CommonMode, Exclude, Subtract
from xsmall.calibration.common_mode.numbers import CommonModeLike, common_mode_numbers, resolve_common_mode
from xsmall.calibration.common_mode.plan import compile_plan
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.kernels.common_mode import apply_common_mode


def correct(
    spec: CommonModeLike, detector: str, image: np.ndarray, use: np.ndarray, noise: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correct one image; return it, the corrections and the counts."""
    mode = resolve_common_mode(spec, detector)
    plan = compile_plan(mode, range(image.shape[0]), range(image.shape[1]), noise)
    stack = image[None].astype(np.float32)
    corrections, counts = np.empty((1, plan.n_units), np.float32), np.empty((1, plan.n_units), np.int32)
    apply_common_mode(stack, (use != 0)[None].astype(np.uint8), plan, corrections, counts)
    return stack[0], corrections[0], counts[0]


@pytest.mark.parametrize(
    ("spec", "name", "tolerance"),
    [
        ((7, 1, 100, 10), "p2_apply_mode1_max100_n10", 1e-4),
        ((0, 3, 8, 10), "p2_apply_mode3_max8_n10", 1e-4),
        (36, "alg6_cm_epix_36", 1e-3),
        ((6,), "alg6_cm_epix_36", 1e-3),
        (46, "sdt_cm_epix_46", 1e-3),
        ("recommended", "sdt_cm_epix_46", 1e-3),
        (4, "cpp_alg4_6_30_10", 1e-4),
    ],
)
def test_epix100_equals_psana_and_smalldata_tools(
    shared: Path, spec: CommonModeLike, name: str, tolerance: float
) -> None:
    with np.load(shared / "oracles" / "common-mode-epix100.npz") as file:
        out, _, _ = correct(spec, "epix100", file["img"], file["mask"], file["rms"])
        np.testing.assert_allclose(out, file[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("tile", ["0", "1"])
@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ((1, 25, 25, 100), "alg1_25_25_100"),
        (1, "alg1_25_40_100"),
        ((1, 50, 50, 100), "alg1_50_50_100"),
        (5, "alg5_100"),
        (55, "alg5_5000"),
        ((5, 10), "alg5_10"),
    ],
)
def test_cspad_equals_psana(shared: Path, spec: CommonModeLike, name: str, tile: str) -> None:
    with np.load(shared / "oracles" / "common-mode-cspad.npz") as file:
        out, corrections, _ = correct(spec, "cspad", file["data" + tile], file["status" + tile] == 0)
        np.testing.assert_allclose(out, file[f"{name}_out{tile}"], rtol=0, atol=1e-3)
        value = float(file[f"{name}_cm{tile}"])
        np.testing.assert_allclose(corrections, np.nan if value == -10000 else value, rtol=1e-6)


@pytest.mark.parametrize(("spec", "mode"), [(71, 1), (72, 2), (7, 3), ((7, 3, 10, 10), 3)])
def test_jungfrau_equals_psana(shared: Path, spec: CommonModeLike, mode: int) -> None:
    with np.load(shared / "oracles" / "calib-jungfrau.npz") as file:
        raw = file["raw"][0]
        stage = np.array([0, 1, 0, 2])[raw >> 14][None]
        dark = (file["pedestals"] + file["pixel_offset"])[:, 0]
        gain = np.take_along_axis(file["pixel_gain"][:, 0], stage, 0)[0]
        good = ((file["pixel_status"][:, 0] & 0xFFFF) == 0).all(0)
        adu = (raw & 0x3FFF) - np.take_along_axis(dark, stage, 0)[0]
        out, _, _ = correct(spec, "jungfrau", adu, good & (raw >> 14 == 0))
        trusted = good & (raw >> 14 != 2) & (gain != 0)
        expected = file[f"psana2_v0_cm7_{mode}"][0][trusted]
        np.testing.assert_allclose(out[trusted] / gain[trusted], expected, rtol=1e-6, atol=2e-3)


@pytest.mark.parametrize(("spec", "mode"), [(83, 1), (85, 3)])
def test_epix10ka_equals_psana(shared: Path, spec: CommonModeLike, mode: int) -> None:
    with np.load(shared / "oracles" / "calib-epix10ka.npz") as file:
        raw, stage, good = file["raw"][0], file["grange"], file["mask"][0] != 0
        adu = (raw & 0x3FFF) - np.take_along_axis(file["pedestals"][:, 0], stage, 0)[0]
        gain = np.take_along_axis(file["pixel_gain"][:, 0], stage, 0)[0]
        high = np.isin(stage[0], resolve_common_mode(spec, "epix10ka").gain_stages)
        out, _, _ = correct(spec, "epix10ka", adu, good & high)
        expected = file[f"calib_alg7_mode{mode}"][0][good]
        np.testing.assert_allclose(out[good] / gain[good], expected, rtol=1e-6, atol=2e-3)


def test_the_peak_fit_falls_back_to_unbonded_pixels_where_it_is_told_to() -> None:
    flat = np.full((185, 388), 8.0)
    flat[::2] = np.linspace(-900, 900, 93)[:, None]  # no zero-photon peak within the limit
    flat += 600
    pixels = np.arange(10, 185, 10)
    for half in (0, 194):
        flat[pixels, pixels + half] = 7.0
    use = np.ones(flat.shape)
    assert np.isnan(correct(1, "cspad", flat, use)[1]).all()
    np.testing.assert_allclose(correct(10, "cspad", flat, use)[1], 7.0)


def test_archon_takes_the_median_of_the_overscan_from_each_bank() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 3, (4, 4800)).astype(np.float32)
    out, corrections, counts = correct(30, "archon", image, np.ones(image.shape))
    banks = image.reshape(4, 16, 300)
    expected = np.median(banks[..., 264:], axis=2)
    np.testing.assert_allclose(corrections.reshape(4, 16), expected, rtol=1e-6)
    np.testing.assert_allclose(out.reshape(4, 16, 300), banks - expected[..., None], atol=1e-4)
    assert (counts == 36).all()


def test_icarus_98_records_what_99_subtracts() -> None:
    image = np.random.default_rng(0).normal(5, 3, (1024, 512)).astype(np.float32)
    use = np.ones(image.shape)
    kept, recorded, _ = correct(98, "icarus", image, use)
    corrected, applied, _ = correct(99, "icarus", image, use)
    np.testing.assert_array_equal(kept, image)
    np.testing.assert_array_equal(recorded, applied)
    np.testing.assert_allclose(corrected, image - np.median(image[:, 255:257]), atol=1e-5)


def test_pnccd_8_takes_rows_then_columns() -> None:
    rng = np.random.default_rng(0)
    image = (rng.normal(0, 2, (512, 512)) + rng.normal(0, 9, (512, 1))).astype(np.float32)
    out, _, _ = correct(8, "pnccd", image, np.ones(image.shape))
    stretches = image.reshape(512, 4, 128)
    rows = (stretches - np.median(stretches, axis=2, keepdims=True)).reshape(512, 512)
    np.testing.assert_allclose(out, rows - np.median(rows, axis=0), atol=1e-4)


@pytest.mark.parametrize(
    ("detector", "numbers"),
    [
        ("jungfrau", {-1, 0, 7, 30, 71, 72}),
        ("epix10ka2m", {-1, 0, 30, 80, 82, 83, 84, 85}),
        ("Epix100a", {-1, 0, 4, 6, 30, 34, 36, 45, 46, 47}),
        ("cspad", {-1, 0, 1, 5, 10, 30, 55}),
        ("cspad2x2", {-1, 0, 1, 5, 10, 30, 55}),
        ("pnccd", {-1, 0, 3, 8, 30}),
        ("icarus", {-1, 0, 80, 81, 98, 99}),
        ("uxi", {-1, 0, 80, 81, 98, 99}),
        ("opal", {-1, 0, 30}),
        ("andor", {-1, 0, 2, 30}),
        ("fccd960", {-1, 0, 4, 30}),
    ],
)
def test_each_detector_has_the_numbers_it_has_in_smalldata_tools(detector: str, numbers: set[int]) -> None:
    assert numbers <= set(common_mode_numbers(detector))
    for number in numbers:
        mode = resolve_common_mode(number, detector)
        assert mode.number == number
        assert mode.describe()


@pytest.mark.parametrize(
    ("detector", "segments", "number"),
    [
        ("jungfrau", 8, 7), ("epix100", 1, 46), ("epix10ka", 16, 84), ("epix10ka", 1, 80), ("epix10ka", None, 80),
        ("cspad", 32, 1), ("opal", 1, 0), ("rayonix", 1, 0), ("fccd960", 1, 0),
    ],
)  # fmt: skip
def test_recommended_says_what_it_took(detector: str, segments: int | None, number: int) -> None:
    mode = resolve_common_mode("recommended", detector, n_segments=segments)
    assert mode.number == number
    assert mode.origin.startswith("recommended for ")
    assert str(number or "none") in mode.origin


@pytest.mark.parametrize(
    ("spec", "detector", "expected"),
    [
        (84, "jungfrau", "-1, 0, 7, 30, 71, 72"),
        (107, "jungfrau", "ghost"),
        ("best", "jungfrau", "recommended"),
        (True, "jungfrau", "not a common mode"),
        ((4, 6, 30, 10), "jungfrau", "algorithm 0 or one of 7"),
        ((4,), "epix100", "other parameters"),
        ((7, 8, 10, 10), "jungfrau", "mode bits"),
        ((4, 9, 30, 10), "epix100", "mode bits"),
        ((8, 16, 500), "pnccd", "mode bits"),
        ((), "jungfrau", "empty"),
        ((6, 50), "epix100", "no parameters"),
        ((1, 50, 50, 100, 4, 64, 1), "princeton", "cannot be cut"),
        ((1, 50, 50, 100, 2, 1024, 2), "princeton", "cannot be cut"),
        (180, "epix10ka", "common_mode=80; then .sd.subtract_ghost"),
        (81, "epix10ka", "nominal gains"),
        (181, "epix10ka", "nominal gains.*subtract_ghost"),
        ((2, 10, 10, 50), "andor", "128"),
        ((4, 3, 30, 10), "fccd", "no common-mode algorithm 4"),
        ((4, 4, 30, 10), "fccd960", "mode bits"),
        ((4, 1, 5), "fccd960", "from 10 to 4999"),
        ((4, 1, 20.5), "fccd960", "whole number"),
        ((4, 1, 20, 0.5), "fccd960", "whole ADU"),
        ((4, 1), "fccd960", "other parameters"),
        (7, None, "detector_type"),
    ],
)
def test_invalid_common_modes_are_refused(spec: CommonModeLike, detector: str | None, expected: str) -> None:
    with pytest.raises(ParameterError, match=expected):
        resolve_common_mode(spec, detector)


@pytest.mark.parametrize("spec", [None, False, 0, (0,)])
def test_no_common_mode_has_no_steps(spec: CommonModeLike) -> None:
    assert resolve_common_mode(spec, "jungfrau").steps == ()


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(range(1, 257), range(64)), (range(256), range(65)), (range(256), range(0, 128, 2)), ([], [0])],
)
def test_units_that_a_slice_has_cut_are_refused(rows: range, columns: range) -> None:
    with pytest.raises(DataError, match="whole units"):
        compile_plan(resolve_common_mode(7, "jungfrau"), rows, columns)


def test_a_slice_of_whole_units_is_corrected_as_in_the_segment() -> None:
    image = np.random.default_rng(0).normal(0, 3, (512, 1024)).astype(np.float32)
    whole, _, _ = correct(7, "jungfrau", image, np.ones(image.shape))
    mode = resolve_common_mode(7, "jungfrau")
    plan = compile_plan(mode, range(256, 512), range(128, 384))
    part = image[None, 256:, 128:384].copy()
    apply_common_mode(
        part, np.ones(part.shape, np.uint8), plan, np.empty((1, plan.n_units), np.float32),
        np.empty((1, plan.n_units), np.int32),
    )  # fmt: skip
    np.testing.assert_array_equal(part[0], whole[256:, 128:384])


def test_noise_that_is_needed_and_missing_is_asked_for() -> None:
    with pytest.raises(CalibrationError, match="noise"):
        compile_plan(resolve_common_mode(46, "epix100"), range(704), range(768))


@pytest.mark.parametrize(
    "arguments",
    [
        {"rows": 0}, {"estimator": "mode"}, {"applied_to": "some"}, {"max_correction": -1}, {"pixels": 4, "rows": 1},
        {"columns_used": (3, 3)}, {"min_count": 0}, {"interleave": 0}, {"interleave": 1.5}, {"half_range": 9},
        {"half_range": 5000}, {"half_range": float("nan")}, {"estimator": "histogram_median", "within": 10},
        {"estimator": "histogram_median", "below": 10}, {"interleave": 2, "columns_used": (0, 4)},
        {"interleave": 2, "rows": 185, "columns": 388, "estimator": "unbonded"},
        {"sigma_max": 2.0}, {"min_peak": 5}, {"fallback": True}, {"half_range": 40}, {"limit_included": False},
    ],
)  # fmt: skip
def test_invalid_steps_are_refused(arguments: dict) -> None:
    with pytest.raises(ParameterError):
        Subtract(name="row", **arguments)


def test_an_exclusion_that_excludes_nothing_is_refused() -> None:
    for nothing in ({}, {"neighbours": True}, {"neighbours": True, "within": 30}):
        with pytest.raises(ParameterError):
            Exclude(**nothing)


@pytest.mark.parametrize(
    "detector", ["jungfrau", "epix10ka", "epix100", "cspad", "pnccd", "icarus", "andor", "archon", "fccd960"]
)
def test_what_differs_is_described_differently(detector: str) -> None:
    modes = [resolve_common_mode(number, detector) for number in common_mode_numbers(detector)]
    texts = {mode.steps: mode.describe() for mode in modes if not mode.raw}
    assert len(set(texts.values())) == len(texts)


def test_records_are_values() -> None:
    assert resolve_common_mode(7, "jungfrau") == resolve_common_mode(7, "jungfrau")
    assert len({resolve_common_mode(n, "jungfrau") for n in (7, 7, 71)}) == 2
    with pytest.raises(ParameterError, match="same name"):
        CommonMode(steps=(Subtract(name="row", rows=1), Subtract(name="row", rows=2)))


def test_the_peak_of_each_part_of_a_frame() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 3, (64, 128)).astype(np.float32)
    image[:32] += 7
    image[32:] -= 5
    parts, corrections, _ = correct((1, 50, 50, 100, 2, 4096, 1), "princeton", image, np.ones(image.shape))
    np.testing.assert_allclose(corrections, [7, -5], atol=0.3)
    for half in (slice(0, 32), slice(32, 64)):
        alone, _, _ = correct((1, 50, 50, 100), "princeton", image[half], np.ones((32, 128)))
        np.testing.assert_array_equal(parts[half], alone)
    whole, _, _ = correct((1, 50, 50, 100, 1, 8192, 1), "princeton", image, np.ones(image.shape))
    np.testing.assert_array_equal(whole, correct(1, "princeton", image, np.ones(image.shape))[0])


def test_a_number_may_be_one_of_numpy() -> None:
    assert resolve_common_mode(np.int64(71), "jungfrau") == resolve_common_mode(71, "jungfrau")
    with pytest.raises(ParameterError, match="not a common mode"):
        resolve_common_mode(True, "jungfrau")
