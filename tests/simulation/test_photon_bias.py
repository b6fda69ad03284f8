"""Bias of counts of photons by simulation: nothing where nothing disturbs, and what another simulation shows."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from scipy.special import ndtr

import xsmall as xs
from xsmall.errors import ParameterError

RECORD = xs.droplet(4.0, 1.2) | xs.photon(9.5)
SMALL: dict[str, Any] = {"n_events": 64, "shape": (64, 64)}
CLOUD, NOISE, MODES, MEAN = 0.15, 0.25, 2, 0.06


def shared(rng: np.random.Generator, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Charge of photons that fall anywhere on their pixels, photon by photon, with all pixels in its sums."""
    frame = np.zeros(counts.shape)
    for r, c in zip(*np.nonzero(counts), strict=True):
        for _ in range(counts[r, c]):
            y, x = rng.uniform(-0.5, 0.5, 2)
            down, right = (np.diff(ndtr((np.arange(-2, 4) - 0.5 - at) / CLOUD)) for at in (y, x))
            for i, part in enumerate(down):
                for j, other in enumerate(right):
                    if 0 <= r + i - 2 < counts.shape[0] and 0 <= c + j - 2 < counts.shape[1]:
                        frame[r + i - 2, c + j - 2] += 9.5 * part * other
    return frame


def test_nothing_is_lost_or_moved_where_nothing_disturbs() -> None:
    bias = xs.photon_bias(RECORD, [0.02, 0.2], cloud=1e-9, noise=1e-6, n_modes=1, **SMALL)
    np.testing.assert_array_equal(bias["photons_found"], 1.0)
    np.testing.assert_array_equal(bias["contrast_bias"], 0.0)
    np.testing.assert_array_equal(bias["n_k"], bias["n_k_true"])
    np.testing.assert_array_equal(bias["n_k"].sum("k"), 64 * 64 * 64)
    # two photons in neighbouring pixels are one droplet, and stay where they are
    np.testing.assert_array_equal(bias["in_own_pixel"], 1.0)


def test_the_contrast_of_other_frames_is_right_once_the_bias_is_subtracted() -> None:
    rng = np.random.default_rng(5)
    counts = rng.poisson(rng.gamma(MODES, MEAN / MODES, (60, 48, 48)))
    frames = np.stack([shared(rng, c) for c in counts]) + rng.normal(0, NOISE, counts.shape)
    cal = xr.DataArray(
        frames[:, None].astype(np.float32), {"event": np.arange(60)}, ("event", "segment", "row", "column"),
        attrs={"units": "keV"},
    )  # fmt: skip
    found = xs.contrast(xs.apply(cal, RECORD)).compute()
    bias = xs.photon_bias(RECORD, MEAN, cloud=CLOUD, noise=NOISE, n_modes=MODES, n_events=320, shape=(64, 64))
    error = float(np.hypot(found["contrast_stderr"], bias["contrast_bias_stderr"]))
    assert abs(float(bias["contrast_bias"])) > 2.5 * error  # it matters
    assert abs(float(found["contrast"] - bias["contrast_bias"]) - 1 / MODES) < 3 * error


def test_errors_are_those_between_seeds() -> None:
    given: dict[str, Any] = {"cloud": CLOUD, "noise": NOISE, "n_modes": MODES, "n_events": 32, "shape": (48, 48)}
    of_seed = [xs.photon_bias(RECORD, 0.1, seed=s, **given) for s in range(16)]
    all_of = xr.concat([b.drop_dims("k") for b in of_seed], "seed", combine_attrs="drop")
    for name in ("photons_found", "in_own_pixel", "contrast", "contrast_true", "contrast_bias"):
        between, told = float(all_of[name].std("seed", ddof=1)), float(all_of[f"{name}_stderr"].mean())
        assert 0.55 < between / told < 1.8, name
    xr.testing.assert_identical(xs.photon_bias(RECORD, 0.1, seed=3, **given), of_seed[3])


def test_what_a_threshold_loses_is_what_the_shape_of_the_cloud_says() -> None:
    place = (np.arange(500) + 0.5) / 500 - 0.5
    borders = np.array([-9.0, -0.5, 0.5, 9.0])
    share = np.diff(ndtr((borders - place[:, None]) / 0.3), axis=1)
    charge = 9.5 * np.einsum("ai,bj->abij", share, share).reshape(500, 500, 9)
    for threshold in (7.0, 4.0):
        bias = xs.photon_bias(
            xs.droplet(threshold) | xs.photon(9.5), 0.005, cloud=0.3, noise=1e-3, n_events=320, shape=(64, 64)
        )
        told = np.where(charge >= threshold, charge, 0.0).sum(axis=-1)
        seen = (told >= 9.5 / 2).mean()  # half a photon, or there is none
        assert 0.1 < seen < 0.9
        assert abs(float(bias["photons_found"]) - seen) < 4 * float(bias["photons_found_stderr"]) < 0.04


def test_every_way_of_counting_is_tried() -> None:
    def found(record: Any) -> float:
        return float(xs.photon_bias(record, 0.02, cloud=CLOUD, noise=NOISE, **SMALL)["photons_found"])

    # sigma of the noise that is simulated, whatever the noise of the detector; and its mask and form of output
    of_sigma = xs.droplet(xs.sigma(16), xs.sigma(4.8), noise=np.ones((1, 5, 7)), mask=np.ones((1, 5, 7), bool))
    assert found(of_sigma | xs.photon(9.5, sparse=True)) == found(RECORD)
    assert 0.8 < found(xs.photon(9.5, thr_fraction=0.85)) < 0.95 < found(RECORD)  # corners of four pixels are lost


def test_one_mean_count_has_no_dim_and_several_keep_all_counts() -> None:
    one = xs.photon_bias(RECORD, 0.02, cloud=CLOUD, noise=NOISE, **SMALL)
    assert one["contrast_bias"].dims == ()
    several = xs.photon_bias(RECORD, [0.02, 3.0], cloud=CLOUD, noise=NOISE, n_events=16, shape=(32, 32))
    np.testing.assert_array_equal(several["n_k_true"].sum("k"), 16 * 32 * 32)
    assert {several[n].dtype for n in ("n_k_true", "n_k")} == {np.dtype(np.int64)}
    assert several["mean_count"].values.tolist() == [0.02, 3.0]
    nothing = xs.photon_bias(RECORD, 1e-9, cloud=CLOUD, noise=NOISE, n_events=16, shape=(8, 8))
    assert np.isnan(nothing["photons_found"])
    assert np.isnan(nothing["contrast_bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"record": xs.droplet(4.0)}, "not a record of photons"),
        ({"record": xs.droplet(4.0) | xs.photon()}, "value of a photon"),
        ({"mean_count": 0.0}, "invalid mean_count"),
        ({"mean_count": []}, "invalid mean_count"),
        ({"mean_count": [0.1, np.nan]}, "invalid mean_count"),
        ({"cloud": 0.0}, "invalid cloud"),
        ({"cloud": 0.5}, "invalid cloud"),
        ({"cloud": [0.1]}, "invalid cloud"),
        ({"noise": -1.0}, "invalid noise"),
        ({"n_modes": np.inf}, "invalid n_modes"),
        ({"noise": None}, "invalid noise"),
        ({"n_events": 8}, r"invalid n_events[\s\S]*n_events=320"),
        ({"shape": 320}, "invalid shape"),
        ({"shape": (64,)}, "invalid shape"),
        ({"shape": (0, 64)}, r"invalid shape[\s\S]*shape=\(128, 128\)"),
    ],
)
def test_what_is_refused(change: dict[str, Any], message: str) -> None:
    given = {"record": RECORD, "mean_count": 0.1, "cloud": CLOUD, "noise": NOISE} | change
    with pytest.raises(ParameterError, match=message):
        xs.photon_bias(given.pop("record"), given.pop("mean_count"), **given)
