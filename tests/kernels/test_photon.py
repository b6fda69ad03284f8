"""Kernels of photons beside their twins, and photons of known places."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.kernels import droplet, photon, photon_count
from xsmall.kernels.reference import droplet as slow_droplet
from xsmall.kernels.reference import photon as twin

CUTS = (-np.inf, np.inf, 1.0, np.inf)


def place(
    frame: npt.NDArray[np.float64],
    use: npt.NDArray[np.bool_],
    thresholds: tuple[float, float],
    energy: float,
    *,
    cloud: float = 0.0,
    how: tuple[bool | None, bool | None] = (None, None),
) -> npt.NDArray[np.float64]:
    """Places (photon, 2) by the kernel, of frames as the package gives them, for which it is compiled anyway."""
    frame, shape = np.array(frame, np.float32), frame.shape
    work, members = droplet.Workspace(*shape), droplet.Members(*shape).arrays
    scratch = photon.Scratch(*shape).arrays
    high, low = (np.float32(t) for t in thresholds)
    limits, words = (high, low, np.finfo(np.float32).max), droplet.mask_words(use)
    frame.flags.writeable = words.flags.writeable = False
    found = droplet.find(frame, None, None, words, limits, (*how, None), work.arrays, members)
    end, _, _ = photon.photons_of_droplets(
        frame, found, work.found, members, CUTS, (energy, cloud, 64), scratch, 0, (np.empty(0), np.empty(0))
    )
    out = np.empty(end), np.empty(end)
    again, _, _ = photon.photons_of_droplets(
        frame, found, work.found, members, CUTS, (energy, cloud, 64), scratch, 0, out
    )  # fmt: skip
    assert again == end
    return np.stack(out, axis=1)


def shared_charge(shape: tuple[int, int], places: npt.NDArray[np.float64], cloud: float) -> npt.NDArray[np.float64]:
    """Charge of photons at (photon, 2), each a Gaussian cloud, in photons."""
    from scipy.special import ndtr

    out = np.zeros(shape)
    for y, x in places:
        rows, columns = (
            np.diff(ndtr((np.arange(n + 1) - 0.5 - v) / cloud)) for n, v in zip(shape, (y, x), strict=True)
        )
        out += np.outer(rows, columns)
    return out


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 2.0), st.booleans(), st.booleans())
def test_places_equal_the_twin(seed: int, density: float, flood: bool, diagonal: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 9)), int(rng.integers(1, 40))
    frame = rng.poisson(density, shape) * rng.uniform(0.7, 1.2, shape) + rng.normal(0, 0.15, shape)
    frame[rng.random(shape) < 0.05] = np.nan
    frame, use = frame.astype(np.float32), rng.random(shape) > 0.1
    got = place(frame, use, (0.5, 0.2), 1.0, how=(flood or None, diagonal or None))
    expected = []
    for pixels, total in _pixels_of_droplets(frame, use, flood=flood, diagonal=diagonal):
        expected += twin.greedy(pixels, int(np.floor(total + 0.5)))
    assert len(got) == len(expected)
    np.testing.assert_allclose(got, np.array(expected).reshape(-1, 2), atol=1e-9)
    rounded = np.floor(got + 0.5).astype(int)
    assert all(use[r, c] and frame[r, c] >= 0.2 for r, c in rounded)


def _pixels_of_droplets(
    frame: npt.NDArray[np.float32], use: npt.NDArray[np.bool_], *, flood: bool, diagonal: bool
) -> list[tuple[dict[tuple[int, int], float], float]]:
    """Pixels of each droplet, found by labelling those of the twin's droplets again."""
    beside = slow_droplet.EDGES + slow_droplet.CORNERS if diagonal else slow_droplet.EDGES
    valid = np.isfinite(frame) & use
    seed, above = valid & (frame >= 0.5), valid & (frame >= 0.2)
    todo = above.copy() if flood else seed | (slow_droplet._shifted(seed, beside) & above)
    out = []
    for r, c in list(zip(*np.nonzero(todo), strict=True)):
        if todo[r, c]:
            pixels = slow_droplet._walk(todo, (int(r), int(c)), beside)
            if any(seed[p] for p in pixels):
                held = {p: float(frame[p]) for p in pixels}
                out.append((held, float(sum(held[p] for p in sorted(held)))))
    return out


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 3.0), st.floats(0.5, 1.0))
def test_psanas_rule_equals_the_twin(seed: int, density: float, least: float) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 9)), int(rng.integers(1, 20))
    frame = rng.poisson(density, shape) * 8.0 + rng.normal(0, 3.0, shape)
    frame = np.round(frame)  # equal rests happen, and eighths are exact
    frame[rng.random(shape) < 0.05] = np.nan
    frame[rng.random(shape) < 0.02] = np.inf
    use = rng.random(shape) > 0.1
    expected = twin.photons_of_pixels(frame, use, 8.0, least)
    n = photon.photons_of_pixels(frame, use, np.finfo("f8").max, 8.0, least, 0, (np.empty(0), np.empty(0)))
    assert n == expected.sum()
    out = np.empty(n), np.empty(n)
    photon.photons_of_pixels(frame, use, np.finfo("f8").max, 8.0, least, 0, out)
    np.testing.assert_array_equal(np.histogram2d(*out, bins=shape, range=[(-0.5, n - 0.5) for n in shape])[0], expected)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_numbers_of_pixels_equal_the_twin(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    shape = 7, 9
    photons = rng.poisson(0.8, shape)
    regions = rng.random((3, *shape)) > 0.4
    row, column = (np.repeat(i.ravel(), photons.ravel()).astype(float) for i in np.indices(shape))
    n_k, above, counts = np.zeros((3, most + 1), np.int64), np.zeros(3, np.int64), np.zeros(shape, np.int32)
    photon_count.count_pixels(row, column, regions, counts, False, n_k, above)
    assert not counts.any()
    photon_count.count_pixels(row, column, regions, counts, True, np.zeros_like(n_k), np.zeros_like(above))
    np.testing.assert_array_equal(counts, photons)
    for g in range(3):
        expected = twin.count_pixels(photons, regions[g], most)
        np.testing.assert_array_equal([*n_k[g, 1:], above[g]], expected[1:])


@pytest.mark.parametrize("spread", ["even", "narrow", "equal", "below zero"])
def test_a_droplet_of_many_photons_is_filled_as_the_twin_fills_it_and_loses_none(spread: str) -> None:
    rng = np.random.default_rng(3)
    rests = {
        "even": rng.random((40, 50)),
        "narrow": 0.95 + 0.01 * rng.random((40, 50)),  # each takes from neighbours that had more
        "equal": np.full((40, 50), 0.5),
        "below zero": np.where(rng.random((40, 50)) < 0.02, 0.9, 0.004 * rng.random((40, 50))),
    }[spread]
    frame = (rng.poisson(6.0, (40, 50)) + rests).astype(np.float32).astype(float)
    got = place(frame, np.ones(frame.shape, bool), (0.001, 0.0005), 1.0)
    assert len(got) == np.floor(frame.sum() + 0.5)
    expected = twin.greedy({(r, c): v for (r, c), v in np.ndenumerate(frame) if v >= 0.0005}, len(got))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    filled = np.histogram2d(*np.floor(got + 0.5).T, bins=frame.shape, range=[(-0.5, 39.5), (-0.5, 49.5)])[0]
    assert np.abs(filled - frame).max() < 1.0


@pytest.mark.parametrize(("cloud", "fraction"), [(0.15, 0.95), (0.3, 0.85)])
def test_photons_of_known_places_are_found(cloud: float, fraction: float) -> None:
    rng = np.random.default_rng(5)
    shape, n = (200, 200), 400
    places = rng.uniform(5, 195, (n, 2))
    frame = shared_charge(shape, places, cloud) + rng.normal(0, 0.02, shape)
    truth = Counter(map(tuple, np.floor(places + 0.5).astype(int)))
    errors = {}
    for width in (0.0, cloud):
        got = place(frame, np.ones(shape, bool), (0.3, 0.1), 1.0, cloud=width)
        assert abs(len(got) - n) <= 4
        found = Counter(map(tuple, np.floor(got + 0.5).astype(int)))
        assert (truth & found).total() > fraction * n
        nearest = np.sqrt(((places[:, None] - got[None]) ** 2).sum(-1)).min(axis=1)
        errors[width] = np.median(nearest)
    assert errors[0.0] < 0.35
    assert errors[cloud] <= errors[0.0] + 0.02


def test_a_fit_tells_two_photons_of_one_droplet_apart() -> None:
    rng = np.random.default_rng(6)
    better = []
    for _ in range(60):
        places = np.array([[5.0, 5.0], [5.0, 5.0]]) + rng.uniform(-0.5, 0.5, (2, 2)) + [[0, 0], [0.2, 1.2]]
        frame = shared_charge((11, 12), places, 0.35) + rng.normal(0, 0.01, (11, 12))
        off = []
        for width in (0.0, 0.35):
            got = place(frame, np.ones(frame.shape, bool), (0.2, 0.05), 1.0, cloud=width, how=(True, None))
            assert len(got) == 2
            off.append(min(np.abs(places - got).max(), np.abs(places - got[::-1]).max()))
        better.append(off)
    greedy, fitted = np.median(np.array(better), axis=0)
    assert fitted < 0.6 * greedy
    assert fitted < 0.15


def test_kernels_of_photons_let_other_threads_run(lets_others_run) -> None:  # type: ignore[no-untyped-def]
    frame = np.random.default_rng(1).poisson(0.5, (600, 600)).astype(np.float32)
    use = np.ones(frame.shape, bool)
    out = np.empty(frame.size), np.empty(frame.size)
    assert lets_others_run(lambda: photon.photons_of_pixels(frame, use, 1e30, 1.0, 0.9, 0, out))
