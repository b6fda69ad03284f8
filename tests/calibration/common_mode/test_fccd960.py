"""The FCCD960: psana's algorithm 4, and words whose upper bits are the gain."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.calibration.calibrate import calibrate
from xsmall.calibration.common_mode.mode import CommonMode, Subtract
from xsmall.calibration.common_mode.numbers import CommonModeLike, resolve_common_mode
from xsmall.calibration.common_mode.plan import compile_plan
from xsmall.calibration.constants import constants as make_constants
from xsmall.calibration.corrections import common_mode
from xsmall.errors import DataError, ParameterError
from xsmall.kernels.common_mode import apply_common_mode
from xsmall.kernels.reference.common_mode import apply_common_mode as slow_common_mode
from xsmall.vocabulary import FRAME_DIMS

FACTOR = np.array([1, 4, 1, 8])


@pytest.fixture(scope="module")
def frame() -> tuple[np.ndarray, np.ndarray]:
    """A frame made by a formula, with bands far up and far down, and the pixels to use."""
    r, c = np.indices((960, 960))
    image = ((7 * r * r + 13 * c * r + 29 * c + 3 * c * c) % 211) / 8 - 13
    image += (r * 5) % 23 - 11 + 6 * (c % 2) + (c // 160) * 4 - 8
    image[100:110] += 300
    image[200:210, ::2] -= 45
    bad = (r + 3 * c) % 7 == 0
    bad[300, :142] = True  # leaves the first two units of the row fewer than ten pixels
    return image.astype(np.float32), ~bad


def correct(
    spec: CommonModeLike, image: np.ndarray, use: np.ndarray, function: object = apply_common_mode
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    plan = compile_plan(resolve_common_mode(spec, "fccd960"), range(len(image)), range(image.shape[1]))
    stack = image[None].copy()
    corrections, counts = np.empty((1, plan.n_units), np.float32), np.empty((1, plan.n_units), np.int32)
    function(stack, use[None].astype(np.uint8), plan, corrections, counts)
    return stack[0], corrections[0], counts[0]


# what psana 1 subtracted from pixels 0, 1, 160, 161 ... of a row: its C++, compiled and run on this frame
ROWS = {
    (4, 1, 20): {
        0: [-19.2, -13.2, -13.2, -8.2, -10.2, -3.2, -5.7, -1.2, -2.2, 4.46667, 0.3, 4.8],
        105: [
            300.59998, 303.13333, 301.13333, 310.29999, 308.79999, 312.79999, 311.79999, 316.79999, 313.19998,
            322.29999, 321.79999, 322.79999,
        ],
        205: [-49.2, 1.46667, -46.2, 4.6, -40.53333, 8.13333, -38.2, 14.8, -32.2, 17.46667, -28.8, 20.46667],
        300: [0, 0, -10.7, -3.7, -4.03333, -2.8, -5.2, 5.4, 2.8, 6.13333, 5.8, 9.3],
    },
    (4, 1, 20, 10): {
        0: [0, 0, 0, -8.2, 0, -3.2, -5.7, -1.2, -2.2, 4.46667, 0.3, 4.8],
        105: [0] * 12,
        205: [0, 1.46667, 0, 4.6, 0, 8.13333, 0, 0, 0, 0, 0, 0],
    },
    (4, 3, 30, 40): {
        0: [
            -19.19722, -13.19722, -12.85087, -7.85087, -9.82079, -2.82079, -5.24181, -0.74181, -1.99033, 4.67634,
            0.67711, 5.17711,
        ],
        205: [
            0.00278, 1.46944, 0.34913, 4.94913, 0.37921, 8.51254, -37.74181, 15.25819, -31.99033, 17.67633, -28.42289,
            20.84378,
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("spec", ROWS)
def test_rows_equal_psana(frame: tuple[np.ndarray, np.ndarray], spec: tuple[float, ...]) -> None:
    image, use = frame
    out, corrections, _ = correct(spec, image, use)
    columns = np.arange(0, 960, 160)[:, None] + [0, 1]
    for row, expected in ROWS[spec].items():
        np.testing.assert_allclose((image - out)[row, columns].ravel(), expected, rtol=0, atol=1e-4)
        if spec[1] == 1:
            of_row = np.nan_to_num(corrections.reshape(960, 12)[row])
            np.testing.assert_allclose(of_row, expected, rtol=0, atol=1e-4)


def test_supercolumns_equal_psana(frame: tuple[np.ndarray, np.ndarray]) -> None:
    image, use = frame
    out, corrections, counts = correct((4, 2, 20, 0), image, use)
    row, column = np.array([0, 480])[:, None], np.array([0, 10, 500, 950])
    expected = [[-4.1726, -4.23007, 7.06761, 15.32201], [-4.56429, -4.22994, 6.44925, 14.7]]
    np.testing.assert_allclose((image - out)[row, column], expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(corrections.reshape(2, 96)[:, column // 10], expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(counts, use.reshape(2, 480, 96, 10).sum((1, 3)).ravel())


@pytest.mark.parametrize(
    ("spec", "total"), [((4, 1, 20), -151324.1316), ((4, 2, 20), 2462276.2941), ((4, 3, 30, 40), 2428536.3359)]
)
def test_whole_frames_equal_psana_in_sum(
    frame: tuple[np.ndarray, np.ndarray], spec: tuple[float, ...], total: float
) -> None:
    assert correct(spec, *frame)[0].sum(dtype=float) == pytest.approx(total, abs=1)


@pytest.mark.parametrize("spec", [(4, 3, 30, 40), (4, 1, 10, 5)])
def test_the_kernel_equals_its_twin(frame: tuple[np.ndarray, np.ndarray], spec: tuple[float, ...]) -> None:
    image, use = (a[:480].copy() for a in frame)
    image[5, 7], image[6, 8], image[7, 9] = np.nan, np.inf, -1e30
    for fast, slow in zip(correct(spec, image, use), correct(spec, image, use, slow_common_mode), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=2e-7, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-9000, 9000, width=32) | st.integers(-15, 15) | st.just(np.nan), min_size=16, max_size=16),
    st.integers(10, 60),
)
def test_any_numbers_give_what_the_twin_gives(values: list[float], half_range: int) -> None:
    step = Subtract(name="row", rows=1, columns=16, interleave=2, estimator="histogram_median", half_range=half_range)
    image = np.array([values], np.float32)
    use = np.ones(image.shape)
    mode = CommonMode(steps=(step,))
    for fast, slow in zip(correct(mode, image, use), correct(mode, image, use, slow_common_mode), strict=True):
        np.testing.assert_array_equal(fast, slow)


@pytest.mark.parametrize("shift", [0, 7000, -4000, 12000, -12000])
def test_a_median_too_far_for_the_bins_is_none(shift: int) -> None:
    image = np.full((1, 160), shift, np.float32)
    mode = CommonMode(steps=(Subtract(name="row", rows=1, columns=160, interleave=2, estimator="histogram_median"),))
    expected = np.nan if abs(shift) > 10000 else shift + 0.3  # half of the pixels of the bin, and 0.8
    corrections = correct(mode, image, np.ones(image.shape))[1]
    np.testing.assert_allclose(corrections, expected, rtol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(range(960), range(80)), (range(960), range(1, 161))])
def test_slices_that_cut_rows_are_refused(rows: range, columns: range) -> None:
    with pytest.raises(DataError, match="whole units of 160"):
        compile_plan(resolve_common_mode((4, 1, 20), "fccd960"), rows, columns)


def test_slices_of_whole_units_are_corrected_as_in_the_segment(frame: tuple[np.ndarray, np.ndarray]) -> None:
    image, use = frame
    mode = resolve_common_mode((4, 3, 20), "fccd960")
    plan = compile_plan(mode, range(480, 960), range(320, 640))
    part, taking = image[None, 480:, 320:640].copy(), use[None, 480:, 320:640].astype(np.uint8)
    apply_common_mode(
        part, taking, plan, np.empty((1, plan.n_units), np.float32), np.empty((1, plan.n_units), np.int32)
    )
    np.testing.assert_array_equal(part[0], correct(mode, image, use)[0][480:, 320:640])


@pytest.mark.parametrize("estimator", ["median", "integer_median", "mean", "histogram_median"])
@pytest.mark.parametrize("interleave", [2, 4])
def test_interleaved_units_of_any_estimator_are_what_the_pixels_alone_give(estimator: str, interleave: int) -> None:
    rng = np.random.default_rng(interleave)
    image = (rng.normal(0, 5, (8, 64)) + rng.normal(0, 9, 64)).astype(np.float32)
    use = rng.random(image.shape) < 0.8
    step = {"name": "row", "rows": 2, "estimator": estimator, "max_correction": 12}
    together = CommonMode(steps=(Subtract(columns=32, interleave=interleave, **step),))
    alone = CommonMode(steps=(Subtract(columns=32 // interleave, **step),))
    out, corrections, counts = correct(together, image, use)
    for i in range(interleave):
        one, of_one, n = correct(alone, image[:, i::interleave].copy(), use[:, i::interleave])
        np.testing.assert_array_equal(out[:, i::interleave], one)
        np.testing.assert_array_equal(corrections.reshape(4, 2, interleave)[..., i].ravel(), of_one)
        np.testing.assert_array_equal(counts.reshape(4, 2, interleave)[..., i].ravel(), n)


def test_units_that_do_not_interleave_evenly_are_refused() -> None:
    mode = CommonMode(steps=(Subtract(name="row", rows=1, columns=5, interleave=2),))
    with pytest.raises(ParameterError, match="differ in size"):
        mode.grids(range(2), range(10))


@pytest.fixture(scope="module")
def words() -> np.ndarray:
    """Two events of words about a pedestal of 400, a tenth of the pixels in the lower gains, a few of code 2."""
    rng = np.random.default_rng(0)
    value = 400 + rng.normal(0, 3, (2, 1, 960, 960)) + rng.normal(0, 6, (2, 1, 960, 1))
    code = rng.choice(4, value.shape, p=[0.89, 0.06, 0.01, 0.04])
    value += np.where(code > 0, rng.integers(500, 7000, value.shape), 0)
    return (value.round().astype(np.uint16) | code << 14).astype(np.uint16)


def known(factor: np.ndarray, pedestal: float = 400.0) -> xr.Dataset:
    """Constants of one pedestal and one gain of 2 ADU/keV, on the scale of the highest gain."""
    of_stage = np.ones((3, 1, 960, 960), np.float32) / np.asarray(factor, np.float32)[:, None, None, None]
    return make_constants("fccd960", pedestal * of_stage, gain=2 * of_stage)


def raw_of(words: np.ndarray) -> xr.DataArray:
    return xr.DataArray(words, dims=FRAME_DIMS, attrs={"detector_type": "Fccd960"})


def test_words_are_values_times_1_4_and_8(words: np.ndarray) -> None:
    code, value = words >> 14, (words & 0x1FFF).astype(float)
    found = calibrate(raw_of(words), known(np.array([1, 4, 8]))).values
    expected = np.where(code == 2, np.nan, (value * FACTOR[code] - 400) / 2)
    trusted = np.isfinite(found)
    np.testing.assert_array_equal(trusted, (code != 2) & (value < 0x1FFF))
    np.testing.assert_allclose(found[trusted], expected[trusted], rtol=1e-6, atol=1e-4)


def test_the_bit_between_value_and_gain_is_not_read(words: np.ndarray) -> None:
    constants = known(np.array([1, 4, 8]))
    np.testing.assert_array_equal(
        calibrate(raw_of(words | 0x2000), constants).values, calibrate(raw_of(words), constants).values
    )


@pytest.mark.parametrize("spec", [(4, 1, 20), (4, 3, 20, 30)])
def test_pixels_of_all_gains_are_corrected_on_one_scale(words: np.ndarray, spec: tuple[float, ...]) -> None:
    code, value = words >> 14, (words & 0x1FFF).astype(np.float32)
    psana = value * FACTOR[code].astype(np.float32) - 400  # psana decodes so, and has one pedestal
    expected = np.stack([correct(spec, image[0], c[0] != 2)[0] for image, c in zip(psana, code, strict=True)])[:, None]
    constants = known(np.array([1, 4, 8]))
    found = calibrate(raw_of(words), constants, common_mode=spec).values
    trusted = np.isfinite(found)
    np.testing.assert_allclose(found[trusted], expected[trusted] / 2, rtol=1e-6, atol=1e-4)
    assert (np.abs(expected - psana)[code == 3] > 1).any()
    looked_at = common_mode(raw_of(words), spec, constants)
    scaled = looked_at["corrected"].values * FACTOR[code]
    np.testing.assert_allclose(scaled[trusted], expected[trusted], rtol=1e-6, atol=1e-4)


def test_corrections_are_labelled_by_the_first_pixel_of_each_unit(words: np.ndarray) -> None:
    looked_at = common_mode(raw_of(words), (4, 3, 20), known(np.array([1, 4, 8])))
    assert looked_at["row_correction"].shape == (2, 1, 960, 12)
    assert looked_at["row_column"].values.tolist() == [0, 1, 160, 161, 320, 321, 480, 481, 640, 641, 800, 801]
    assert looked_at["supercolumn_correction"].shape == (2, 1, 2, 96)
    taking = (words >> 14 != 2)[:, 0].reshape(2, 960, 6, 80, 2).sum(3).reshape(2, 1, 960, 12)
    np.testing.assert_array_equal(looked_at["row_n_pixels"].values, taking)


def test_strict_leaves_no_uncorrected_pixel(frame: tuple[np.ndarray, np.ndarray]) -> None:
    image, use = frame
    mode = resolve_common_mode((4, 1, 20, 10), "fccd960")
    out, corrections, _ = correct(mode.strict(), image, use)
    failed = np.isnan(corrections).reshape(960, 6, 1, 2).repeat(80, axis=2).reshape(960, 960)
    np.testing.assert_array_equal(np.isnan(out), failed)
    np.testing.assert_array_equal(out[~failed], correct(mode, image, use)[0][~failed])


def test_what_it_does_is_said() -> None:
    assert resolve_common_mode(4, "fccd960").describe() == (
        "histogram median of each row (1 x 160 pixels, one in 2), at first within 20 ADU, from 10 pixels on, "
        "from all pixels"
    )
