"""Peaks: what psana's peakfinder8 finds, a slow twin, and spots that were put there."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.detector.geometry.geometry import Panel
from xsmall.errors import DataError, GeometryError, ParameterError
from xsmall.kernels import peaks as kernel
from xsmall.kernels.reference import peaks as twin

PIXEL = 1e-4
FROM_PSANA = np.array(
    [
        [251.1527, 51.52431, 9, 5.322717, 47.22676, 3.052689, 82.27261],
        [986.4053, 175.9319, 13, 3.526936, 88.22789, 2.74064, 359.9178],
        [309.9536, 66.78642, 9, 8.528906, 67.40092, 4.360978, 71.07433],
        [610.478, 121.1365, 13, 8.801826, 120.6327, 1.928307, 316.5876],
        [910.586, 191.057, 12, 12.06469, 106.2904, 3.606893, 252.4572],
        [93.24178, 29.37377, 5, 29.01456, 95.92784, 3.402001, 27.40792],
        [194.9737, 43.82067, 9, 45.3272, 52.13126, 2.311893, 84.33508],
        [2290.933, 258.4103, 27, 51.83654, 53.59826, 4.655972, 492.0418],
        [750.4109, 148.3719, 12, 35.37604, 106.0387, 3.76385, 199.3732],
        [1068.433, 198.4106, 15, 38.39793, 65.27319, 2.768537, 385.9199],
        [849.0253, 173.0067, 14, 38.80798, 73.27959, 2.983373, 284.5858],
        [113.5781, 29.27846, 4, 57.50016, 69.50697, 2.836282, 40.04471],
    ]
)
"""What peakfinder8 of psana (lcls2, 2026) says of :func:`picture`, in tiles of 32 x 64, above 12 and 5 sigma, 2 to 30
pixels, background radius 3: sum, highest, pixels, row, column, noise, ratio."""
COLUMNS = ("sum", "max", "n_pixels", "row", "column", "background_noise", "snr")


def picture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame with rings and spots, the distance of each pixel from the beam, and a mask."""
    rng = np.random.default_rng(11)
    y, x = np.indices((64, 128))
    r = np.hypot(y - 20.25, x - 70.5)
    data = 40 * np.exp(-r / 40) + rng.normal(0, 1, r.shape) * (1 + np.exp(-r / 50))
    for _ in range(14):
        row, column, height = rng.uniform(3, 60), rng.uniform(3, 124), rng.uniform(20, 300)
        data += height * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 1.6)
    mask = rng.random(r.shape) > 0.01
    return data.astype("f4"), r, mask


def frames(values: np.ndarray, chunk: int | None = None) -> xr.DataArray:
    """Frames (event, segment, row, column) whose beam hits row 20.25, column 70.5 of the first segment."""
    n, segments, rows, columns = values.shape
    panels = [
        Panel(origin=(-70.5 * PIXEL, (-20.25 + s * rows) * PIXEL, 0.1), slow=(0, PIXEL, 0), fast=(PIXEL, 0, 0),
              shape=(rows, columns)) for s in range(segments)
    ]  # fmt: skip
    data = values if chunk is None else da.from_array(values, chunks=(chunk, *values.shape[1:]))
    coords = {
        "event": np.arange(n),
        "segment": np.arange(segments),
        "row": np.arange(rows),
        "column": np.arange(columns),
    }
    out = xr.DataArray(data, coords, ("event", "segment", "row", "column"), attrs={"units": "ADU"}, name="cal")
    return out.sd.assign_geometry(xs.Geometry.from_panels(panels))


def table(found: xr.Dataset, event: int = 0) -> np.ndarray:
    return np.stack([np.asarray(found[name].values[event], float) for name in COLUMNS], axis=1)


def test_peaks_are_those_of_psana() -> None:
    data, _, mask = picture()
    found = frames(data[None, None]).sd.peaks(12.0, snr=5.0, sizes=(2, 30), tile=(32, 64), mask=mask[None], hit=10)
    np.testing.assert_allclose(table(found), FROM_PSANA, rtol=1e-4)
    assert int(found["n_peaks"][0]) == len(FROM_PSANA)
    assert bool(found["is_hit"][0]) == (len(FROM_PSANA) >= 10)


@pytest.mark.parametrize(
    ("threshold", "snr", "sizes", "reach", "offset"),
    [(12, 5, (2, 30), 6, 0), (0, 4, (1, 200), 10, 0), (30, 8, (3, 9), 4, 0), (-500, 5, (2, 30), 6, -400)],
)
def test_the_kernels_are_their_slow_twins(
    threshold: float, snr: float, sizes: tuple[int, int], reach: int, offset: float
) -> None:
    """Where all values are below zero the published centroid lies outside the frame: there are no peaks."""
    data, r, mask = picture()
    data += np.float32(offset)
    data[10, 10], data[40, 40], data[30, 90] = np.nan, np.inf, -np.inf
    ring = np.where(mask, np.rint(r), -1).astype(np.int32)
    n = ring.max() + 1
    stats = np.empty(n), np.empty(n), np.empty(n)
    kernel.rings(data[None], ring[None], float(snr), float(threshold), *stats, np.empty((n, 3)))
    for mine, theirs in zip(stats, twin.rings(data, ring, snr, threshold), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    room, seen = np.empty((500, kernel.COLUMNS)), np.zeros(data.shape, bool)
    count = kernel.find(
        data, ring, stats, sizes, (float(snr), reach), data.shape, seen, np.empty(data.size, np.int32), room
    )
    np.testing.assert_allclose(room[:count], twin.peaks(data, ring, stats, sizes, snr, reach), rtol=1e-9)
    assert (count > 0) == (offset == 0)
    assert not seen.any()


def test_spots_are_found_where_they_were_put_and_hits_are_told() -> None:
    rng = np.random.default_rng(2)
    y, x = np.indices((64, 128))
    values = rng.normal(0, 1, (6, 2, 64, 128))
    for event, n in enumerate((0, 3, 5, 12, 1, 7)):
        for i in range(n):
            row, column = 6 + 13 * (i % 4) + rng.uniform(0, 1), 10 + 20 * (i // 4) + rng.uniform(0, 1)
            values[event, i % 2] += 2000 / (2 * np.pi) * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 2)
    found = (
        frames(values.astype("f4"), chunk=4).sd.peaks(20.0, snr=6.0, background="segment", hit=5, also=["x"]).compute()
    )
    assert found["n_peaks"].values.tolist() == [0, 3, 5, 12, 1, 7]
    assert found["is_hit"].values.tolist() == [False, False, True, True, False, True]
    for event in range(6):
        row, column = found["row"].values[event], found["column"].values[event]
        assert (np.abs((row - 6) % 13) < 1.2).all()
        assert (np.abs((column - 10) % 20) < 1.2).all()
        assert (np.abs(found["sum"].values[event] / 2000 - 0.92) < 0.08).all()  # the rest lies below the threshold
        np.testing.assert_allclose(found["x"].values[event], (column - 70.5) * PIXEL, atol=1e-9)


def test_no_chunking_changes_a_bit_and_lists_survive_a_file(tmp_path) -> None:
    data, _, _ = picture()
    values = np.stack([np.roll(data, (3 * i, 5 * i), (0, 1)) for i in range(7)])[:, None]
    one = frames(values).sd.peaks(12.0)
    for chunk in (1, 3, 7):
        other = frames(values, chunk).sd.peaks(12.0).compute()
        for event in range(7):
            np.testing.assert_array_equal(table(other, event), table(one, event))
    xs.save(one, tmp_path / "peaks.h5")
    again = xs.lists(xr.open_dataset(tmp_path / "peaks.h5"))
    np.testing.assert_array_equal(again["snr"].values[3], one["snr"].values[3])


def test_rows_in_another_order_and_parts_keep_their_labels() -> None:
    data, _, mask = picture()
    whole = frames(data[None, None])
    there = whole.sd.peaks(12.0, mask=mask[None])
    back = whole.isel(row=slice(None, None, -1)).sd.peaks(12.0, mask=mask[None, ::-1])
    np.testing.assert_allclose(table(back), table(there), rtol=1e-12)
    part = whole.isel(column=slice(32, None)).sd.peaks(12.0, background="segment")
    assert (part["column"].values[0] >= 32).all()
    with pytest.raises(DataError, match="neighbours"):
        whole.isel(row=slice(None, None, 2)).sd.peaks(12.0)


def test_a_flat_background_needs_no_geometry() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(3, 1, (2, 1, 32, 32)).astype("f4")
    values[0, 0, 10:12, 20:22] += 40
    plain = frames(values).drop_vars("geometry")
    found = plain.sd.peaks(background="segment", snr=8.0)
    assert found["n_peaks"].values.tolist() == [1, 0]
    np.testing.assert_allclose([found["row"].values[0][0], found["column"].values[0][0]], [10.5, 20.5], atol=0.05)
    with pytest.raises(GeometryError, match="rings"):
        plain.sd.peaks()


def test_masks_of_events_and_other_records_go_with_it() -> None:
    data, _, _ = picture()
    cal = frames(np.stack([data, data])[:, None], chunk=1)
    use = xr.ones_like(cal, dtype=bool)
    use[1] = False
    small = cal.sd.reduce(
        {
            "spots": xs.peaks(12.0, mask=use),
            "snr": xs.peaks(12.0) | xs.histogram("snr", [0.0, 20, 1e6]),
            "n": xs.projection("row"),
        }
    ).compute()
    assert int(small["spots_n_peaks"][0]) > 5
    assert int(small["spots_n_peaks"][1]) == 0
    assert int(small["snr_histogram"][0].sum()) == int(small["spots_n_peaks"][0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": "12"}, "invalid threshold"),
        ({"snr": 0}, "invalid snr"),
        ({"sizes": (5, 2)}, "out of order"),
        ({"sizes": 3}, "invalid sizes"),
        ({"tile": (0, 64)}, "invalid tile"),
        ({"hit": 0}, "invalid hit"),
        ({"background": "flat"}, "invalid background"),
        ({"background_radius": 2.5}, "invalid background_radius"),
        ({"also": ["bright"]}, "invalid also"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        xs.peaks(**options)


def test_the_kernels_release_the_gil(lets_others_run) -> None:
    data, r, _ = picture()
    ring = np.rint(r).astype(np.int32)
    n = ring.max() + 1
    stats = np.empty(n), np.empty(n), np.empty(n)
    assert lets_others_run(lambda: kernel.rings(data[None], ring[None], 5.0, 12.0, *stats, np.empty((n, 3))))
