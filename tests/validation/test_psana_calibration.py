"""Real frames of LCLS, calibrated with given constants, against psana's own calibration."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xsmall as xs
from xsmall.calibration.calibrate import calibrate
from xsmall.calibration.constants import constants

pytestmark = pytest.mark.validation
SCRIPT = Path(__file__).with_name("psana_calib.py")
FILES = {
    "jungfrau": ("jungfrau05M_mfx101332224_run7.xtc2", "jungfrau", 3),
    "epix10ka": ("epix10kaquad_ueddaq02_run109.xtc2", "epixquad", 7),
}


def psana(
    path: Path, name: str, given: dict[str, np.ndarray], folder: Path, **keywords: object
) -> dict[str, np.ndarray]:
    if importlib.util.find_spec("psana") is None:
        pytest.skip("psana is not installed")
    np.savez(folder / "constants.npz", **given)
    files = [str(folder / "constants.npz"), str(folder / "out.npz")]
    command = [sys.executable, str(SCRIPT), str(path), name, *files, json.dumps(keywords)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"PS_PARALLEL": "none"}
    )
    if "cannot load MPI library" in done.stderr:
        pytest.skip("psana needs an MPI library (python -m pip install mpich)")
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "out.npz"))


@pytest.mark.parametrize("kind", FILES)
def test_real_frames_equal_psana(kind: str, shared: Path, tmp_path: Path) -> None:
    file, name, stages = FILES[kind]
    path = shared / "data/xtc2" / file
    raw = xs.open_run(path)[name]["raw"]
    shape = (stages, *raw.shape[1:])
    rng = np.random.default_rng(2)
    given = {
        "pedestals": rng.normal(2800, 50, shape).astype(np.float32),
        "pixel_gain": rng.uniform(0.1, 40, shape).astype(np.float32),
        "pixel_offset": rng.normal(0, 5, shape).astype(np.float32) * (kind == "jungfrau"),
        "pixel_status": ((rng.random(shape) < 1e-3) * 4).astype(np.uint64),
        "pixel_rms": np.ones(shape, np.float32),
    }
    theirs = psana(path, name, given, tmp_path)
    np.testing.assert_array_equal(raw.values, theirs["raw"].reshape(raw.shape))
    table = constants(
        raw.attrs["detector_type"],
        given["pedestals"],
        gain=given["pixel_gain"],
        offset=given["pixel_offset"],
        status=given["pixel_status"],
    )
    ours = calibrate(raw, table).values
    expected = theirs["calib"].reshape(raw.shape)
    assert (expected[np.isnan(ours)] == 0).all()
    good = np.isfinite(ours)
    assert good.mean() > 0.98
    np.testing.assert_allclose(ours[good], expected[good], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("cmpars", [(0, 1, 100, 10), (0, 3, 8, 10), (0, 7, 100, 20)])
def test_common_mode_of_real_frames_equals_psana(
    kind: str, cmpars: tuple[int, ...], shared: Path, tmp_path: Path
) -> None:
    file, name, stages = FILES[kind]
    path = shared / "data/xtc2" / file
    raw = xs.open_run(path)[name]["raw"]
    rng = np.random.default_rng(3)
    near = (raw.values[0] & 0x3FFF).astype(np.float32)  # pedestals close to the first event: offsets of a few ADU
    offset = np.repeat(rng.normal(0, 5, (*near.shape[:2], 8)), near.shape[2] // 8, axis=2)
    shape = (stages, *near.shape)
    given = {
        "pedestals": (near + offset + rng.normal(0, 2, shape)).astype(np.float32),
        "pixel_gain": rng.uniform(10, 40, shape).astype(np.float32),
        "pixel_offset": np.zeros(shape, np.float32),
        "pixel_status": ((rng.random(shape) < 1e-2) * 4).astype(np.uint64),
        "pixel_rms": np.ones(shape, np.float32),
    }
    theirs = psana(path, name, given, tmp_path, cversion=0, cmpars=cmpars)["calib"].reshape(raw.shape)
    kind_of = raw.attrs["detector_type"]
    table = constants(kind_of, given["pedestals"], gain=given["pixel_gain"], status=given["pixel_status"])
    ours = calibrate(raw, table, common_mode=cmpars).values
    without = calibrate(raw, table).values
    good = np.isfinite(ours)
    assert (abs(ours - without)[good] > 0.01).mean() > 0.2
    np.testing.assert_allclose(ours[good], theirs[good], rtol=1e-5, atol=2e-4)
